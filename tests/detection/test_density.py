"""The prepared densities: against scikit-learn and the plain formula, near and far, and over block borders."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.neighbors import KernelDensity
from torch import Tensor

from detection import density as density_module
from detection.density import Densities

torch.set_num_threads(1)

COUNTS, DIM = (1, 7, 40), 6


def make(n: int = 50, seed: int = 0, spread: float = 1.0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Kernels of three classes of different sizes, points, and classes in no order."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        return torch.randn(count, DIM, generator=generator, dtype=torch.float64)

    kernels = [draw(count) + 2 * c for c, count in enumerate(COUNTS)]
    return kernels, spread * draw(n), torch.randint(3, (n,), generator=generator)


def plain(kernels: list[Tensor], h: float, points: Tensor, classes: Tensor) -> Tensor:
    """The definition, row by row, on differences."""
    values = []
    for z, c in zip(points, classes.tolist(), strict=True):
        exponents = -(kernels[c] - z).square().sum(dim=1) / (2 * h * h)
        norm = math.log(len(kernels[c])) + 0.5 * DIM * math.log(2 * math.pi * h * h)
        values.append(torch.logsumexp(exponents, dim=0) - norm)
    return torch.stack(values)


# 0.03 puts every point beyond the reach of exp, 0.2 some, 5 none; spread 300 lies thousands of h away
CASES = [(0.03, 1.0), (0.2, 1.0), (0.7, 1.0), (5.0, 1.0), (0.7, 300.0)]


@pytest.mark.parametrize(("h", "spread"), CASES)
def test_values_equal_scikit_learn(h: float, spread: float) -> None:
    kernels, points, classes = make(spread=spread)
    got = Densities(kernels, h)(points, classes)
    for c, centres in enumerate(kernels):
        fitted = KernelDensity(bandwidth=h, rtol=0, atol=0).fit(centres.numpy())
        expected = torch.from_numpy(fitted.score_samples(points[classes == c].numpy()))
        torch.testing.assert_close(got[classes == c], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("h", "spread"), CASES)
def test_values_and_gradient_equal_the_plain_formula(h: float, spread: float) -> None:
    kernels, points, classes = make(spread=spread)
    ours, theirs = points.clone().requires_grad_(), points.clone().requires_grad_()
    got, expected = Densities(kernels, h)(ours, classes), plain(kernels, h, theirs, classes)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-11)
    weights = torch.arange(1.0, len(points) + 1, dtype=torch.float64)
    (slope,) = torch.autograd.grad((weights * got).sum(), ours)
    (wanted,) = torch.autograd.grad((weights * expected).sum(), theirs)
    torch.testing.assert_close(slope, wanted, rtol=1e-9, atol=1e-10 * float(wanted.abs().max()))
    without = Densities(kernels, h)(points, classes)
    assert not without.requires_grad and torch.equal(without, got.detach())


@pytest.mark.parametrize("h", [0.1, 0.7])
def test_gradient_equals_finite_differences(h: float) -> None:
    kernels, points, classes = make(n=5)
    densities = Densities(kernels, h)
    assert torch.autograd.gradcheck(lambda z: densities(z, classes), points.requires_grad_())


def test_both_ways_to_exponentiate_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, points, classes = make()
    densities = Densities(kernels, 1.5)
    near, near_slopes = densities.evaluate(points, classes, gradient=True)
    monkeypatch.setattr(density_module, "_lower", lambda table: pytest.fail("no row is far"))
    densities.evaluate(points, classes, gradient=True)
    monkeypatch.undo()
    # kernels that might lie further out put every row among the far ones
    densities._radii += 100.0
    far, far_slopes = densities.evaluate(points, classes, gradient=True)
    torch.testing.assert_close(far, near, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(far_slopes, near_slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("h", [0.05, 0.7])
@pytest.mark.parametrize("block", [1, 40, 81, 2**17])
def test_blocks_change_neither_values_nor_gradient(
    monkeypatch: pytest.MonkeyPatch, h: float, block: int
) -> None:
    kernels, points, classes = make()
    densities = Densities(kernels, h)
    whole, slopes = densities.evaluate(points, classes, gradient=True)
    alone = densities.leave_one_out(2)
    monkeypatch.setattr(density_module, "BLOCK", block)
    got, got_slopes = densities.evaluate(points, classes, gradient=True)
    torch.testing.assert_close(got, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got_slopes, slopes, rtol=1e-11, atol=1e-9)
    torch.testing.assert_close(densities.leave_one_out(2), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("distance", [50.0, 1e4, 1e8])
def test_far_away_the_gradient_points_to_the_kernels(distance: float) -> None:
    kernels, _, _ = make()
    h = 0.2
    point = kernels[2].mean(dim=0, keepdim=True) + torch.eye(DIM, dtype=torch.float64)[:1] * distance * h
    point.requires_grad_()
    (slope,) = torch.autograd.grad(Densities(kernels, h)(point, torch.tensor([2])).sum(), point)
    # the softmax of the kernels lies within their radius: slope = -(distance h +- radius) / h^2
    radius = float((kernels[2] - kernels[2].mean(dim=0)).norm(dim=1).max())
    assert abs(slope[0, 0].item() + distance / h) <= radius / h**2
    assert (slope[0, 1:].abs() <= radius / h**2).all()


@pytest.mark.parametrize("gradient", [False, True])
def test_empty_batch(gradient: bool) -> None:
    points = torch.zeros(0, DIM, dtype=torch.float64, requires_grad=gradient)
    got = Densities(make()[0], 0.5)(points, torch.zeros(0, dtype=torch.int64))
    assert got.shape == (0,) and got.dtype == torch.float64
    if gradient:
        (slope,) = torch.autograd.grad(got.sum(), points)
        assert slope.shape == (0, DIM)


def test_points_and_kernels_stay_as_they_were() -> None:
    kernels, points, classes = make()
    copies, before = [k.clone() for k in kernels], points.clone()
    densities = Densities(kernels, 0.7)
    densities.evaluate(points, classes, gradient=True)
    densities.leave_one_out(1)
    assert torch.equal(points, before)
    assert all(torch.equal(a, b) for a, b in zip(kernels, copies, strict=True))


def test_a_second_derivative_is_refused() -> None:
    kernels, points, classes = make(n=3)
    points.requires_grad_()
    value = Densities(kernels, 0.7)(points, classes).sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, points, create_graph=True)
