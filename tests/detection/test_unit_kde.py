"""The density of directions, beside scikit-learn's on rows that scikit-learn has scaled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import normalize
from torch import Tensor

from detection import KDE, Features, UnitKDE, View, kde, mapped, streamed

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def make(seed: int, n: int = 90, dim: int = 5, dtype: torch.dtype = torch.float32) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    embeddings = torch.randn(n, dim, generator=generator) + 3 * torch.eye(dim)[labels]
    return Features(embeddings.to(dtype), torch.nn.functional.one_hot(labels, 3).float(), labels)


def view(embeddings: Tensor, classes: Tensor) -> View:
    return View.from_features(embeddings, torch.nn.functional.one_hot(classes, 3).double())


@pytest.fixture
def out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if few numbers filled it: files are mapped, kernels gathered in a file, blocks are of a few rows."""
    for module, name, value in (
        (mapped, "MAPPED", 1),
        (mapped, "RESIDENT", 1),
        (mapped, "BLOCK", 64),
        (kde, "PREPARED", 0),
        (streamed, "ENTRIES", 50),
    ):
        monkeypatch.setattr(module, name, value)


def equals_scikit_learn(train: Features, test: Features) -> UnitKDE:
    """Scores of rows that scikit-learn has scaled in float64, and its density's of them."""
    detector = UnitKDE(bandwidth=0.2).fit(train, test)
    scores = detector.score(view(test.embeddings, test.labels))
    for c in range(3):
        mine = train.labels == c, test.labels == c
        known, asked = (normalize(f.embeddings[m].double()) for f, m in zip((train, test), mine, strict=True))
        expected = -KernelDensity(bandwidth=0.2).fit(known).score_samples(asked)
        torch.testing.assert_close(scores[mine[1]], torch.from_numpy(expected), rtol=1e-12, atol=1e-12)
    return detector


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_scikit_learn_on_scaled_rows(dtype: torch.dtype) -> None:
    equals_scikit_learn(make(0, dtype=dtype), make(1, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_scikit_learn_out_of_files(out_of_memory: None, tmp_path: Path, dtype: torch.dtype) -> None:
    train, test = make(0, dtype=dtype), make(1, dtype=dtype)
    mapped.save({"train": train.embeddings, "test": test.embeddings}, tmp_path / "features")
    found = mapped.load(tmp_path / "features")
    assert all(map(mapped.is_mapped, found.values()))
    detector = equals_scikit_learn(
        Features(found["train"], train.logits, train.labels),
        Features(found["test"], test.logits, test.labels),
    )
    assert mapped.is_mapped(detector.state_dict()["directions"])


CHILD = """
import sys, torch
from detection import Features, UnitKDE, View, kde, mapped, streamed
mapped.RESIDENT = mapped.BLOCK = 2**20
kde.PREPARED, streamed.ENTRIES = 0, 2**17
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
def features(points):
    labels = torch.arange(256).repeat_interleave(len(points) // 256)
    return Features(points, torch.zeros(1, 1).expand(len(labels), 256), labels)
train, validation = map(features, (torch.randn(512, 32), torch.randn(512, 32)))
UnitKDE().fit(train, validation).score(validation.view())  # what libraries take when they are first used
before = peak()
found = mapped.load(sys.argv[1])
detector = UnitKDE().fit(features(found["train"]), features(found["validation"]))
detector.score(View.from_features(found["train"][:256], torch.eye(256)))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_files_are_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """64 MiB of embeddings to draw from, as many held out: resident memory never grows by as much as either."""
    tensors = {name: torch.rand(2**14, 1024) for name in ("train", "validation")}
    mapped.save(tensors, tmp_path / "file")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "file")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2**16  # KiB


def test_zeros_have_no_direction() -> None:
    """They stay zeros in every dtype, also where the smallest length that is divided by is none."""
    for dtype in DTYPES:
        train = make(0, dtype=dtype)
        train.embeddings[0] = 0
        directions = UnitKDE(0.2).fit(train, train).state_dict()["directions"]
        assert torch.equal(directions[0], torch.zeros(5, dtype=torch.float64))
        lengths = torch.linalg.vector_norm(directions[1:], dim=1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=1e-15, atol=0)


@given(st.lists(st.floats(1e-3, 1e3), min_size=9, max_size=9), st.integers(0, 99))
def test_lengths_say_nothing(lengths: list[float], seed: int) -> None:
    train, test = make(0), make(seed, n=9)
    detector = UnitKDE(bandwidth=0.3).fit(train, make(1))
    longer = test.embeddings.double() * torch.tensor(lengths, dtype=torch.float64)[:, None]
    one, other = (detector.score(view(z, test.labels)) for z in (test.embeddings.double(), longer))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_gradient_turns_and_never_stretches() -> None:
    """A score that lengths do not change has a gradient across the embedding, and this one has one."""
    z = make(1).embeddings.double().requires_grad_()
    detector = UnitKDE(bandwidth=0.3).fit(make(0), make(2))
    detector.score(view(z, make(1).labels)).sum().backward()
    assert z.grad is not None and float(z.grad.norm(dim=1).min()) > 1e-3
    torch.testing.assert_close(
        (z.grad * z).sum(dim=1), torch.zeros(len(z), dtype=torch.float64), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("rule", ["validation", "loo", "nn_median"])
def test_the_bandwidth_is_that_of_scaled_embeddings(rule: str) -> None:
    train, validation = make(0), make(1)
    scaled = [
        Features(f.embeddings / f.embeddings.norm(dim=1, keepdim=True), f.logits, f.labels)
        for f in (train, validation)
    ]
    found, expected = UnitKDE(rule).fit(train, validation), KDE(rule).fit(*scaled)
    assert found.bandwidth_ == pytest.approx(expected.bandwidth_, rel=1e-5)
    assert UnitKDE(rule).load_state_dict(found.state_dict()).bandwidth_ == found.bandwidth_
