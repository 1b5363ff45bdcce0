"""The density of directions, beside scikit-learn's on rows that scikit-learn has scaled."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import normalize
from torch import Tensor

from detection import KDE, Features, UnitKDE, View


def make(seed: int, n: int = 90, dim: int = 5) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    embeddings = torch.randn(n, dim, generator=generator) + 3 * torch.eye(dim)[labels]
    return Features(embeddings, torch.nn.functional.one_hot(labels, 3).float(), labels)


def view(embeddings: Tensor, classes: Tensor) -> View:
    return View.from_features(embeddings, torch.nn.functional.one_hot(classes, 3).double())


def test_equals_scikit_learn_on_scaled_rows() -> None:
    train, test = make(0), make(1)
    scores = UnitKDE(bandwidth=0.2).fit(train, test).score(view(test.embeddings, test.labels))
    for c in range(3):
        mine = train.labels == c, test.labels == c
        known, asked = (normalize(f.embeddings[m].double()) for f, m in zip((train, test), mine, strict=True))
        expected = -KernelDensity(bandwidth=0.2).fit(known).score_samples(asked)
        torch.testing.assert_close(scores[mine[1]], torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


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
