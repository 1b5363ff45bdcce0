from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import davies_bouldin_score

from detection import cluster_distance, cluster_variance, davies_bouldin

# two classes on a line: means (1, 0) and (11, 0); the labels need not start at 0 nor be ordered
POINTS = torch.tensor([[0.0, 0.0], [10.0, 0.0], [2.0, 0.0], [12.0, 0.0], [11.0, 3.0], [11.0, -3.0]])
LABELS = torch.tensor([7, 3, 7, 3, 3, 3])


def test_cluster_variance_by_hand() -> None:
    # class 7: (1 + 1) / 2; class 3: (1 + 1 + 3 + 3) / 4; unsquared norms, summed over classes
    assert cluster_variance(POINTS, LABELS) == pytest.approx(1 + 2, abs=1e-12)


def test_cluster_distance_by_hand() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 8.0]])
    # distances 5, 8 and 5 between three class means
    assert cluster_distance(points, torch.tensor([0, 1, 2])) == pytest.approx(6.0, abs=1e-12)
    assert cluster_distance(POINTS, LABELS) == pytest.approx(10.0, abs=1e-12)
    assert math.isnan(cluster_distance(POINTS, torch.zeros(6).long()))


def test_davies_bouldin_by_hand() -> None:
    assert davies_bouldin(POINTS, LABELS) == pytest.approx((1 + 2) / 10, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_davies_bouldin_has_no_scale(scale: float) -> None:
    points, labels = make_blobs(200, n_features=6, centers=5, random_state=0)
    expected = davies_bouldin_score(points, labels)
    result = davies_bouldin(torch.from_numpy(points * scale), torch.from_numpy(labels).long())
    assert result == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("points", "labels", "reason"),
    [
        (POINTS, torch.zeros(6).long(), "1 classes among 6"),
        (POINTS, torch.arange(6), "6 classes among 6"),
        (torch.ones(4, 2), torch.tensor([0, 0, 1, 1]), "coincide"),
        (torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), torch.tensor([0, 0, 1, 1]), "coincide"),
        (torch.tensor([[math.nan], [1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1, 1]), "not finite"),
    ],
)
def test_davies_bouldin_says_why_it_is_undefined(
    points: torch.Tensor, labels: torch.Tensor, reason: str
) -> None:
    with pytest.warns(UserWarning, match=reason):
        assert math.isnan(davies_bouldin(points, labels))


def test_points_without_spread_but_apart_are_perfect() -> None:
    points = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    assert davies_bouldin(points, torch.tensor([0, 0, 1, 1])) == 0
    assert cluster_variance(points, torch.tensor([0, 0, 1, 1])) == 0


def test_wrong_shapes_are_refused() -> None:
    for call in (cluster_variance, cluster_distance, davies_bouldin):
        with pytest.raises(ValueError, match=r"need embeddings \(N, d\)"):
            call(POINTS, LABELS[:3])
        with pytest.raises(ValueError, match=r"need embeddings \(N, d\)"):
            call(torch.from_numpy(np.zeros((0, 2))), LABELS[:0])
