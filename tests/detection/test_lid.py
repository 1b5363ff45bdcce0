"""Local intrinsic dimensionality against its definition in plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from detection import LID, Features
from detection.lid import local_dimension

torch.set_num_threads(1)


def definition(points: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    """Ma et al. 2018, equation 4, one point after the other; the point itself is no neighbour."""
    result = []
    for row in cdist(points, reference):
        radii = sorted(row)
        if radii[0] == 0:
            radii = radii[1:]
        radii = radii[:k]
        result.append(-1 / (sum(math.log(r / radii[-1]) for r in radii) / k))
    return np.array(result)


def cloud(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("k", [2, 20, 59])
def test_equals_the_definition(k: int) -> None:
    reference, points = cloud(60, 4, 0), cloud(30, 4, 1)
    expected = definition(points.numpy(), reference.numpy(), k)
    torch.testing.assert_close(
        local_dimension(points, reference, k), torch.from_numpy(expected), rtol=1e-9, atol=0
    )


def test_a_reference_is_no_neighbour_of_itself() -> None:
    reference = cloud(60, 4, 0)
    expected = definition(reference.numpy(), reference.numpy(), 10)
    torch.testing.assert_close(
        local_dimension(reference, reference, 10), torch.from_numpy(expected), rtol=1e-9, atol=0
    )
    # the same by leaving the point out by hand, and by scikit-learn, which does so for points it was fitted on
    alone = [local_dimension(reference[i : i + 1], reference[torch.arange(60) != i], 10) for i in range(60)]
    torch.testing.assert_close(torch.cat(alone), torch.from_numpy(expected), rtol=1e-9, atol=0)
    radii = NearestNeighbors(n_neighbors=10).fit(reference.numpy()).kneighbors()[0]
    by_sklearn = -1 / np.log(radii / radii[:, -1:]).mean(axis=1)
    torch.testing.assert_close(torch.from_numpy(by_sklearn), torch.from_numpy(expected), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dim", [2, 3])
def test_finds_the_dimension_of_a_flat_sheet(dim: int) -> None:
    sheet = torch.rand(4000, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = torch.linalg.qr(cloud(8, 8, 3)).Q[:dim]
    inner = sheet[((sheet - 0.5).abs() < 0.2).all(dim=1)][:100] @ turned
    estimate = local_dimension(inner, sheet @ turned, 30)
    assert float(estimate.mean()) == pytest.approx(dim, rel=0.15)


def test_degenerate_neighbours_stay_finite() -> None:
    same = torch.zeros(30, 3, dtype=torch.float64)
    ring = torch.eye(6, dtype=torch.float64)
    for points, reference in [(same[:2], same), (torch.zeros(1, 6).double(), ring), (same[:1] + 1, same)]:
        leaf = points.clone().requires_grad_(True)
        found = local_dimension(leaf, reference, 4)
        (gradient,) = torch.autograd.grad(found.sum(), leaf)
        assert torch.isfinite(found).all() and torch.isfinite(gradient).all() and (found > 0).all()


def test_gradient_is_the_derivative() -> None:
    points = cloud(5, 4, 1).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: local_dimension(z, cloud(60, 4, 0), 10), points)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e3), order=st.permutations(range(40)), seed=st.integers(0, 99))
def test_neither_scale_nor_order_counts(scale: float, order: list[int], seed: int) -> None:
    reference, points = cloud(40, 3, seed), cloud(6, 3, seed + 1000)
    plain = local_dimension(points, reference, 8)
    torch.testing.assert_close(local_dimension(scale * points, scale * reference[order], 8), plain)


def make(n: int = 120, seed: int = 0, noise: float = 0.0) -> Features:
    labels = torch.arange(n) % 3
    flat = torch.nn.functional.pad(cloud(n, 2, seed), (0, 4)) + labels[:, None]
    points = flat + noise * cloud(n, 6, seed + 50)
    logits = torch.nn.functional.one_hot(labels if not noise else (labels + 1) % 3, 3).double()
    return Features(points, logits, labels, {"body": points[:, :4] ** 2})


def test_regression_equals_scikit_learn_on_numpy_dimensions() -> None:
    train, attacked, test, layers = make(), make(seed=1, noise=0.8), make(seed=2), ["embedding", "body"]
    detector = LID(layers, k=8, reference=1000).fit(train, train, attacked)
    known = [
        np.stack([definition(f.layer(n).numpy(), train.layer(n).numpy(), 8) for n in layers], axis=1)
        for f in (train, attacked, test)
    ]
    both = np.concatenate(known[:2])
    mean, spread = both.mean(axis=0), both.std(axis=0, ddof=1)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit((both - mean) / spread, [0] * 120 + [1] * 120)
    expected = model.decision_function((known[2] - mean) / spread)
    torch.testing.assert_close(detector.score(test.view()), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_reference_is_a_seeded_draw_per_class() -> None:
    train, attacked = make(), make(seed=1, noise=0.8)
    states = [
        LID(["embedding"], k=8, reference=9, seed=seed).fit(train, train, attacked).state_dict()
        for seed in (1, 1, 2)
    ]
    first, again, other = (state["LID.embedding.reference"] for state in states)
    assert first.shape == (27, 6) and torch.equal(first, again) and not torch.equal(first, other)
    rows = (first[:, None] == train.embeddings).all(dim=2)
    assert (rows.sum(dim=1) == 1).all()
    assert train.labels[rows.double().argmax(dim=1)].bincount().tolist() == [9, 9, 9]


def test_too_few_references() -> None:
    with pytest.raises(ValueError, match=r"k=9 neighbours of 9 reference images: lower detector\.k"):
        LID(["embedding"], k=9, reference=3).fit(make(), make(), make(seed=1, noise=0.8))


@pytest.mark.parametrize("wrong", [{"k": 1}, {"reference": 0}, {"seed": -1}, {"layers": []}])
def test_hyper_parameters_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LID(**wrong)
