from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import davies_bouldin_score

from detection import Interval, cluster_distance, cluster_intervals, cluster_variance, davies_bouldin

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


def test_intervals_equal_a_bootstrap_of_the_measures_themselves() -> None:
    points, labels = (torch.from_numpy(a) for a in make_blobs(120, n_features=3, centers=4, random_state=1))
    found = cluster_intervals(points, labels, resamples=4000, seed=1)
    rng, groups = np.random.default_rng(5), [np.flatnonzero(labels.numpy() == c) for c in range(4)]
    drawn = [np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(1500)]
    for name, measure in (
        ("dbi", lambda x, y: davies_bouldin_score(x.numpy(), y.numpy())),
        ("cluster_variance", cluster_variance),
        ("cluster_distance", cluster_distance),
    ):
        values = np.array([measure(points[rows], labels[rows]) for rows in drawn])
        assert found[name].value == pytest.approx(measure(points, labels)) and found[name].n == 120
        limits = np.quantile(values, [0.025, 0.975])
        assert (found[name].low, found[name].high) == pytest.approx(limits, abs=0.3 * values.std()), name


def test_what_is_undefined_has_no_interval() -> None:
    with pytest.warns(UserWarning, match="1 classes"):
        found = cluster_intervals(POINTS, torch.zeros(6).long())
    assert found["dbi"] == Interval(None, None, None, 6)
    assert found["cluster_variance"].value is not None and found["cluster_variance"].low is None


def test_intervals_have_no_scale_and_no_origin() -> None:
    points, labels = (torch.from_numpy(a) for a in make_blobs(60, n_features=5, centers=3, random_state=2))
    one, other = (cluster_intervals(p, labels, resamples=50) for p in (points, 1000 * points + 1e4))
    assert (other["dbi"].low, other["dbi"].high) == pytest.approx((one["dbi"].low, one["dbi"].high), rel=1e-6)
    assert other["cluster_distance"].high == pytest.approx(1000 * one["cluster_distance"].high, rel=1e-6)
