"""Projections, starts and steps in both norms, against closed forms and other solvers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor

from attacks.geometry import Ball, orthogonal_l2, orthogonal_linf

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


def length(change: Tensor, norm: str) -> Tensor:
    flat = change.double().flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else flat.square().sum(dim=1).sqrt()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.double().flatten(1), b.double().flatten(1)
    return (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-300)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def images(seed: int, count: int = 5) -> Tensor:
    """Images with many saturated pixels."""
    return (normal(seed, count, 2, 5, 5) * 0.6 + 0.5).clamp(0, 1)


@NORMS
@given(
    seed=st.integers(0, 10**6),
    eps=st.floats(0, 4),
    spread=st.floats(1e-3, 10),
    double=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_projection_holds_ball_and_box(norm: str, seed: int, eps: float, spread: float, double: bool) -> None:
    x = images(seed).double() if double else images(seed)
    far = x + spread * normal(seed + 1, *x.shape).to(x)
    near = Ball(norm, eps).project(far, x)
    assert near.dtype == x.dtype
    assert near.min() >= 0
    assert near.max() <= 1
    assert (length(near - x, norm) <= eps + 1e-6).all()
    again = Ball(norm, eps).project(near, x)
    assert (again - near).abs().max() <= 1e-6


def test_projection_leaves_the_inside_alone() -> None:
    x = images(0)
    inside = (x + 0.01 * normal(1, *x.shape)).clamp(0, 1)
    assert (Ball("l2", 2.0).project(inside, x) - inside).abs().max() < 1e-7
    assert torch.equal(Ball("l2", 0.0).project(inside, x), x)


def test_l2_projection_is_the_nearest_point() -> None:
    """Against a general solver for the same convex problem."""
    for seed in range(4):
        x = images(seed)[:1, :, :2, :2].double()
        far = x + 2 * normal(seed + 9, *x.shape, dtype=torch.float64)
        found = Ball("l2", 0.7).project(far, x)
        centre, goal = x.flatten().numpy(), far.flatten().numpy()
        best = minimize(
            lambda p, goal=goal: ((p - goal) ** 2).sum(),
            centre,
            bounds=[(0, 1)] * len(centre),
            constraints={"type": "ineq", "fun": lambda p, c=centre: 0.49 - ((p - c) ** 2).sum()},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert (found.flatten() - torch.from_numpy(best.x)).abs().max() < 1e-5


def test_l2_projection_spends_what_the_box_cuts_off() -> None:
    """x = (1, 0), goal (2, 1), eps 0.5: the first pixel cannot move, so the second moves by 0.5."""
    x = torch.tensor([[1.0, 0.0]])
    assert torch.allclose(Ball("l2", 0.5).project(torch.tensor([[2.0, 1.0]]), x), torch.tensor([[1.0, 0.5]]))


@NORMS
def test_starts(norm: str) -> None:
    """In the ball, spread over it, and a function of seed and index alone."""
    x = torch.full((400, 1, 4, 4), 0.5)
    index = torch.arange(400)
    start = Ball(norm, 0.3).start(x, 3, index, "start")
    far = length(start - x, norm)
    assert far.max() <= 0.3 + 1e-6
    assert far.max() > 0.29
    assert (start - x).mean().abs() < 0.01
    alone = Ball(norm, 0.3).start(x[7:8], 3, index[7:8], "start")
    assert torch.equal(alone, start[7:8])
    assert not torch.equal(Ball(norm, 0.3).start(x, 4, index, "start"), start)
    if norm == "l2":  # a length uniform in [0, eps] has its mean at eps / 2
        assert far.mean().item() == pytest.approx(0.15, abs=0.015)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-12, 1e12), mix=st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_orthogonal_steps_are_orthogonal(seed: int, scale: float, mix: float) -> None:
    """Also for gradients of very different scale, and for nearly parallel ones."""
    other = normal(seed, 4, 1, 6, 6)
    gradient = scale * (mix * other + (1 - abs(mix) + 1e-3) * normal(seed + 1, 4, 1, 6, 6))
    ones = torch.ones_like(other)
    for step in (orthogonal_l2(gradient, other), orthogonal_linf(gradient, other, -ones, ones)):
        assert cosine(step, other).abs().max() < 1e-5
        assert (cosine(step, gradient) > 0).all()
    assert torch.allclose(orthogonal_l2(gradient, other).flatten(1).norm(dim=1), torch.ones(4), atol=1e-5)
    assert orthogonal_linf(gradient, other, -ones, ones).abs().max() <= 1


@given(seed=st.integers(0, 10**6), empty=st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_orthogonal_linf_is_the_optimum_of_the_linear_programme(seed: int, empty: int) -> None:
    """Against scipy's solver, with uneven bounds, zeros in both gradients and ties."""
    gradient, other = normal(seed, 1, 9, dtype=torch.float64), normal(seed + 1, 1, 9, dtype=torch.float64)
    gradient[0, :empty] = other[0, :empty]  # ties: all of them have the ratio 1
    other[0, 7], gradient[0, 8] = 0, 0
    low = -normal(seed + 2, 1, 9, dtype=torch.float64).abs().clamp(max=1)
    high = normal(seed + 3, 1, 9, dtype=torch.float64).clamp(min=0)
    found = orthogonal_linf(gradient, other, low, high)
    best = linprog(
        -gradient[0].numpy(),
        A_eq=other.numpy(),
        b_eq=[0],
        bounds=list(zip(low[0].tolist(), high[0].tolist(), strict=True)),
        method="highs",
    )
    assert (found >= low).all()
    assert (found <= high).all()
    assert (found * other).sum().abs() < 1e-10
    assert (found * gradient).sum().item() == pytest.approx(-best.fun, abs=1e-9)


def test_orthogonal_linf_by_hand() -> None:
    """g = (3, 2, 1), h = (1, 1, 1): ratios 3, 2, 1; the middle one stays where it is."""
    ones = torch.ones(1, 3)
    step = orthogonal_linf(torch.tensor([[3.0, 2.0, 1.0]]), ones, -ones, ones)
    assert torch.equal(step, torch.tensor([[1.0, 0.0, -1.0]]))


def test_orthogonal_l2_by_hand() -> None:
    step = orthogonal_l2(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]]))
    assert torch.allclose(step, torch.tensor([[1.0, 0.0]]))


def test_degenerate_gradients() -> None:
    """Nothing to keep: the steepest step. Nothing to climb, or only what must be kept: no step in L2."""
    g, zero, ones = normal(0, 3, 8), torch.zeros(3, 8), torch.ones(3, 8)
    assert torch.equal(orthogonal_linf(g, zero, -ones, ones), g.sign())
    assert torch.allclose(orthogonal_l2(g, zero), g / g.norm(dim=1, keepdim=True))
    assert torch.equal(orthogonal_l2(g, -3 * g), zero)
    assert torch.equal(orthogonal_l2(zero, g), zero)
    assert torch.equal(orthogonal_linf(zero, zero, -ones, ones), zero)
    parallel = orthogonal_linf(g, g, -ones, ones)
    assert torch.isfinite(parallel).all()
    assert (parallel * g).sum(dim=1).abs().max() < 1e-5


@NORMS
def test_step_beside_keeps_the_other_goal(norm: str) -> None:
    """Where the steepest step harms, the move is orthogonal; where it serves both, it is the steepest one."""
    x = torch.full((200, 1, 4, 4), 0.5, dtype=torch.float64)
    gradient, other = normal(1, *x.shape).to(x), normal(2, *x.shape).to(x)
    ball = Ball(norm, 0.3)
    plain = ball.ascend(gradient, x, x, 0.01)
    harms = cosine(plain - x, other) < 0
    assert 50 < harms.sum() < 150
    beside = ball.ascend_beside(gradient, other, x, x, 0.01)
    assert cosine(beside - x, other)[harms].abs().max() < 1e-5
    assert torch.allclose(beside[~harms], plain[~harms])
    always = ball.ascend_beside(gradient, other, x, x, 0.01, always=True)
    assert cosine(always - x, other).abs().max() < 1e-5
    assert torch.allclose(always[harms], beside[harms])


def test_linf_step_beside_stays_orthogonal_at_the_edges() -> None:
    """Most pixels stand at an edge of ball or box; clipping afterwards would spoil the angle."""
    x = images(3, 50).double()
    ball = Ball("linf", 0.1)
    x_adv = ball.project(x + 0.2 * normal(4, *x.shape).to(x), x)
    gradient, other = normal(5, *x.shape).to(x), normal(6, *x.shape).to(x)
    moved = ball.ascend_beside(gradient, other, x_adv, x, 0.02, always=True)
    assert cosine(moved - x_adv, other).abs().max() < 1e-5
    assert (moved - x_adv).abs().amax() <= 0.02 + 1e-12
    assert length(moved - x, "linf").max() <= 0.1 + 1e-9


def test_l2_step_does_not_push_at_the_wall() -> None:
    """A pixel at 1 whose gradient points up takes nothing from the others' share of the step."""
    x = torch.tensor([[[[1.0, 0.5]]]])
    moved = Ball("l2", 1.0).ascend(torch.tensor([[[[9.0, 0.1]]]]), x, x, 0.2)
    assert torch.allclose(moved, torch.tensor([[[[1.0, 0.7]]]]))


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="norm must be one of linf, l2"):
        Ball("l1", 0.1)
    with pytest.raises(ValueError, match="eps must be finite and >= 0"):
        Ball("l2", -1.0)
