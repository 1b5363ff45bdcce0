from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.model_selection import LeaveOneOut
from sklearn.neighbors import KernelDensity, NearestNeighbors
from torch import Tensor

from detection import KDE, Features
from detection import bandwidth as bandwidth_module
from detection.bandwidth import by_validation, leave_one_out, nearest_neighbour_median

torch.set_num_threads(1)


def clusters(sizes: tuple[int, ...], dim: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, dim, generator=generator, dtype=torch.float64) * (c + 1) for c, n in enumerate(sizes)
    ]


def validation_likelihood(kernels: list[Tensor], points: list[Tensor], h: float) -> float:
    return sum(
        KernelDensity(bandwidth=h).fit(k.numpy()).score(p.numpy())
        for k, p in zip(kernels, points, strict=True)
        if len(p)
    )


def loo_likelihood(kernels: list[Tensor], h: float) -> float:
    total = 0.0
    for k in kernels:
        points = k.numpy()
        for rest, left in LeaveOneOut().split(points) if len(points) > 1 else ():
            total += KernelDensity(bandwidth=h).fit(points[rest]).score(points[left])
    return total


def test_validation_with_one_kernel_a_class_is_the_closed_form() -> None:
    kernels, points = clusters((1, 1), seed=1), clusters((7, 4), seed=2)
    squares = [((p - k) ** 2).sum(1) for k, p in zip(kernels, points, strict=True)]
    # maximum likelihood of an isotropic Gaussian around known centres
    expected = math.sqrt(torch.cat(squares).mean().item() / 3)
    assert by_validation(kernels, points) == pytest.approx(expected, rel=1e-4)


def test_loo_of_two_points_is_the_closed_form() -> None:
    # each point's only other kernel is 5 away in two dimensions: h^2 = 25 / 2
    pair = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    assert leave_one_out([pair]) == pytest.approx(math.sqrt(12.5), rel=1e-4)


def test_validation_beats_every_other_bandwidth_by_scikit_learns_likelihood() -> None:
    kernels, points = clusters((40, 25, 30)), clusters((20, 0, 15), seed=3)
    best = by_validation(kernels, points)
    value = validation_likelihood(kernels, points, best)
    for h in np.geomspace(0.02, 20, 60):
        assert value >= validation_likelihood(kernels, points, h) - 1e-6
    assert value > validation_likelihood(kernels, points, 1.01 * best)
    assert value > validation_likelihood(kernels, points, 0.99 * best)


def test_loo_beats_every_other_bandwidth_by_scikit_learns_likelihood() -> None:
    kernels = clusters((25, 1, 12))  # the class with one kernel is left out
    best = leave_one_out(kernels)
    value = loo_likelihood(kernels, best)
    for h in np.geomspace(0.02, 20, 12):
        assert value >= loo_likelihood(kernels, h) - 1e-6
    assert value > loo_likelihood(kernels, 1.01 * best)
    assert value > loo_likelihood(kernels, 0.99 * best)


def test_likelihood_with_two_maxima_takes_the_higher() -> None:
    # 30 points close to a kernel and 1 far: local maxima at the near and at the far scale
    kernels = [torch.tensor([[0.0], [1000.0]], dtype=torch.float64)]
    near = [torch.tensor([[0.01 * (-1) ** i] for i in range(30)] + [[1.0]], dtype=torch.float64)]
    best = by_validation(kernels, near)
    grid = np.geomspace(1e-3, 1e3, 300)
    values = [validation_likelihood(kernels, near, h) for h in grid]
    assert best == pytest.approx(grid[int(np.argmax(values))], rel=0.03)


def test_nn_median_equals_scikit_learns_neighbours() -> None:
    kernels = clusters((31, 24, 1))
    nearest = [NearestNeighbors(n_neighbors=2).fit(k).kneighbors(k)[0][:, 1] for k in kernels[:2]]
    expected = np.median(np.concatenate(nearest))
    assert nearest_neighbour_median(kernels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("factor", [1e-4, 1e3])
def test_rules_follow_the_embeddings_scale(factor: float) -> None:
    kernels, points = clusters((30, 30)), clusters((20, 20), seed=5)
    scaled, scaled_points = [k * factor for k in kernels], [p * factor for p in points]
    assert by_validation(scaled, scaled_points) == pytest.approx(
        factor * by_validation(kernels, points), rel=1e-4
    )
    assert leave_one_out(scaled) == pytest.approx(factor * leave_one_out(kernels), rel=1e-4)
    expected = factor * nearest_neighbour_median(kernels)
    assert nearest_neighbour_median(scaled) == pytest.approx(expected, rel=1e-9)


def test_collapsed_embeddings_are_refused() -> None:
    same = [torch.full((5, 3), 0.1, dtype=torch.float64)]
    for rule in (leave_one_out, nearest_neighbour_median, lambda k: by_validation(k, k)):
        with pytest.raises(ValueError, match="the embeddings coincide"):
            rule(same)


def test_a_few_duplicates_are_no_obstacle() -> None:
    kernels = clusters((30,))
    kernels[0][1] = kernels[0][0]
    best = leave_one_out(kernels)
    assert loo_likelihood(kernels, best) > max(loo_likelihood(kernels, f * best) for f in (0.1, 0.9, 1.1, 10))


def test_too_few_points_are_refused() -> None:
    single = clusters((1, 1))
    with pytest.raises(ValueError, match="two kernels"):
        leave_one_out(single)
    with pytest.raises(ValueError, match="two kernels"):
        nearest_neighbour_median(single)
    with pytest.raises(ValueError, match="needs validation embeddings"):
        by_validation(single, [s[:0] for s in single])


def test_detector_uses_the_rule_that_it_was_given() -> None:
    kernels, points = clusters((30, 30)), clusters((20, 20), seed=5)

    def features(groups: list[Tensor]) -> Features:
        labels = torch.arange(2).repeat_interleave(torch.tensor([len(g) for g in groups]))
        return Features(torch.cat(groups), torch.zeros(len(labels), 2), labels)

    train, validation = features(kernels), features(points)
    chosen = {
        rule: KDE(bandwidth=rule).fit(train, validation).bandwidth_
        for rule in ("validation", "loo", "nn_median", 0.26)
    }
    assert chosen == {
        "validation": by_validation(kernels, points),
        "loo": leave_one_out(kernels),
        "nn_median": nearest_neighbour_median(kernels),
        0.26: 0.26,
    }


@pytest.mark.parametrize(("limit", "step"), [(400, 7), (1000, 3), (2600, 1)])
def test_too_many_distances_are_a_sample_of_the_points(
    monkeypatch: pytest.MonkeyPatch, limit: int, step: int
) -> None:
    """Every n-th point of each class, against all kernels of its class: by scikit-learn's likelihood."""
    monkeypatch.setattr(bandwidth_module, "DISTANCES", limit)
    kernels, points = clusters((40, 25)), clusters((40, 40), seed=3)
    assert by_validation(kernels, points) == pytest.approx(
        by_validation(kernels, [p[::step] for p in points]), rel=1e-12
    )
    best = by_validation(kernels, points)
    sample = [p[::step] for p in points]
    value = validation_likelihood(kernels, sample, best)
    assert all(value > validation_likelihood(kernels, sample, f * best) for f in (0.98, 1.02))


def test_left_out_points_of_a_sample_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = clusters((31, 24, 1))
    monkeypatch.setattr(bandwidth_module, "DISTANCES", 600)  # 31^2 + 24^2 + 1 = 1538: every third
    nearest = [NearestNeighbors(n_neighbors=2).fit(k).kneighbors(k[::3])[0][:, 1] for k in kernels[:2]]
    expected = np.median(np.concatenate(nearest))
    assert nearest_neighbour_median(kernels) == pytest.approx(expected, rel=1e-12)
    best = leave_one_out(kernels)

    def value(h: float) -> float:
        total = 0.0
        for k in kernels[:2]:
            points = k.numpy()
            for i in range(0, len(points), 3):
                rest = np.delete(points, i, axis=0)
                total += KernelDensity(bandwidth=h).fit(rest).score(points[i : i + 1])
        return total

    assert all(value(best) > value(f * best) for f in (0.5, 0.98, 1.02, 2))
