"""Devices, strict float32 and named randomness."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pdm_lightning.devices import pick_device, set_threads, several, share_of_threads, strict_float32
from pdm_lightning.seeding import derive, generator, reseed, seeded

ROOT = Path(__file__).resolve().parents[2]


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "name", "expected"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "cpu", "cpu"),
        (2, "auto", "cuda:0"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_pick_device(monkeypatch: pytest.MonkeyPatch, count: int, name: str, expected: str) -> None:
    gpus(monkeypatch, count)
    assert pick_device(name) == torch.device(expected)


def test_several_devices_follow_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 3)
    one, two, three = (torch.device("cuda", number) for number in range(3))
    assert several([two], 2, "x") == [two, three]
    assert several([three, one], 2, "x") == [three, one]
    assert several([three, one], 1, "x") == [three]
    assert several([torch.device("cpu")], 5, "x") == [torch.device("cpu")] * 5
    with pytest.raises(
        ValueError, match=r"^trainer.devices=4: PyTorch sees 3 GPUs here, .*use trainer.devices=2$"
    ):
        several([two], 4, "trainer.devices")


def test_processes_share_the_threads_where_the_cpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    shares = [share_of_threads(torch.device(name), 2) for name in ("cpu", "cuda")]
    assert shares == [3, 7]
    assert share_of_threads(torch.device("cpu"), 20) == 1


@pytest.mark.parametrize(
    ("count", "name", "words"),
    [
        (0, "cuda", "sees no GPU here; use trainer.device=cpu"),
        (0, "cuda:1", "sees no GPU"),
        (1, "cuda:1", "this machine has cuda:0$"),
        (2, "cuda:2", "this machine has cuda:0 to cuda:1"),
        (0, "gpu", "use auto, cpu, cuda or cuda:<number>"),
        (2, "cuda:", "is unknown"),
    ],
)
def test_a_device_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, count: int, name: str, words: str
) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(ValueError, match=words):
        pick_device(name)


def test_set_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(2) == 2 == torch.get_num_threads()
        assert set_threads(None) == 2
        for wrong in (0, -1, 1.5, "2", True):
            with pytest.raises(ValueError, match="positive whole number"):
                set_threads(wrong)  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)


# in processes of their own: PyTorch's older switches cannot be read any more once the newest has been moved
SWITCHES = """
import sys, warnings, torch
warnings.simplefilter("error")
from pdm_lightning.devices import _coarse, _fine_switches, strict_float32

fine = _fine_switches()
state = lambda: ([switch.fp32_precision for switch in fine], _coarse())
for setting in sys.argv[1:]:
    exec(setting)
    before = state()
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), strict_float32():
            assert set(state()[0]) <= {"ieee"}, state()
            assert state()[1] in (("highest", False), before[1] and ("highest", False)), state()
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
            assert not torch.is_autocast_enabled("cuda")
            raise KeyError
    except KeyError:
        pass
    assert state() == before, (setting, before, state())
print("fine")
"""
OLDER = [
    "pass",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cudnn.allow_tf32 = False",
]
NEWER = ["torch.backends.fp32_precision = 'tf32'"]


@pytest.mark.parametrize("settings", [OLDER, NEWER], ids=["older", "newer"])
def test_strict_float32_moves_every_switch_and_restores_it(settings: list[str]) -> None:
    if settings is NEWER and not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this switch came with PyTorch 2.9")
    done = subprocess.run(
        [sys.executable, "-c", SWITCHES, *settings], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "fine\n", done.stderr


def test_strict_float32_holds_until_the_last_thread_leaves_it() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with contextlib.ExitStack() as first, contextlib.ExitStack() as last, ThreadPoolExecutor(1) as other:
            first.enter_context(strict_float32())
            other.submit(last.enter_context, strict_float32()).result()
            first.close()
            assert torch.get_float32_matmul_precision() == "highest"
            other.submit(last.close).result()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="TF32 exists on a GPU only")
def test_strict_float32_on_a_gpu() -> None:
    x = torch.randn(256, 256, device="cuda", generator=generator(0, "x", device="cuda"))
    image, kernel = torch.randn(8, 64, 32, 32, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")

    def error() -> tuple[float, float]:
        product = (x @ x).double() - x.double() @ x.double()
        filtered = torch.conv2d(image, kernel).double() - torch.conv2d(image.double(), kernel.double())
        return product.abs().max().item(), filtered.abs().max().item()

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        loose = error()
        with strict_float32():
            strict = error()
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(10 * s < r for s, r in zip(strict, loose, strict=True))


def test_derive_is_the_documented_number() -> None:
    digest = hashlib.sha256(b'[7, "augment", 3]').digest()
    assert derive(7, "augment", 3) == int.from_bytes(digest, "big") >> (256 - 63)
    assert derive(np.int64(7), "augment", torch.tensor(3)) == derive(7, "augment", 3)


def test_derived_seeds_differ_and_fit_a_generator() -> None:
    seeds = [
        derive(s, *names) for s in range(3) for names in ((), ("a",), ("a", 1), ("a", "1"), ("a1",), (1, "a"))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    with pytest.raises(TypeError):
        derive(0.5)  # type: ignore[arg-type]


def test_generators_are_streams_of_their_own() -> None:
    first = torch.rand(4, generator=generator(0, "a"))
    assert torch.equal(first, torch.rand(4, generator=generator(0, "a")))
    assert not torch.equal(first, torch.rand(4, generator=generator(0, "b")))


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()  # noqa: NPY002


def test_seeded_repeats_inside_and_changes_nothing_outside() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = [draw(), draw()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    outside, inside = [draw()], []
    for names in (("a",), ("a",), ("b",)):
        with pytest.raises(KeyError), seeded(3, *names):
            inside.append(draw())
            raise KeyError
    outside.append(draw())
    assert outside == expected
    assert inside[0] == inside[1]
    assert all(a != b for a, b in zip(inside[0], inside[2], strict=True))


def test_reseeding_is_pytorchs_own_and_leaves_nothing_behind() -> None:
    cpu = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2**62 + 5)
        expected = torch.rand(4), torch.randperm(9)
        waiting = len(torch.cuda._queued_calls)
        for _ in range(3):
            reseed(2**62 + 5, cpu)
            found = torch.rand(4), torch.randperm(9)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert len(torch.cuda._queued_calls) == waiting
