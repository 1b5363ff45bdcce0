"""The minimum-norm attack: closed forms, SciPy, C&W and models that give it nothing to go by."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from attacks import CarliniWagner, MinNorm, prepare
from attacks.min_norm import PLANS
from attacks.min_norm_steps import smallest_linf
from attacks.objectives import margin

NORMS = pytest.mark.parametrize("norm", ["l2", "linf"])


def two_classes(weight: Tensor, bias: float) -> nn.Module:
    """Logits (o, -o) with o = <weight, x> + bias."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(weight), 2)).double()
    model[1].weight.data = torch.stack([weight, -weight])
    model[1].bias.data = torch.tensor([bias, -bias], dtype=torch.float64)
    return model


@NORMS
@pytest.mark.parametrize("confidence", [0.0, 2.0])
def test_closed_form_of_a_linear_model(norm: str, confidence: float) -> None:
    """Distance (o_0 - o_1 + k) / ||w_0 - w_1||, in the dual norm: L2 of L2, L1 of Linf."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, generator=generator, dtype=torch.float64)
    dual = weight.norm() if norm == "l2" else weight.abs().sum()
    away = weight / weight.norm() if norm == "l2" else weight.sign()
    asked = torch.tensor([0.05, 0.1, 0.2, 0.3], dtype=torch.float64)
    x = (0.5 + asked[:, None] * away).reshape(4, 1, 8, 8)
    result = MinNorm(norm=norm, confidence=confidence)(two_classes(weight, -0.5 * float(weight.sum())), x)
    optimum = asked + confidence / (2 * dual)
    found = result.l2 if norm == "l2" else result.linf
    assert result.success.all()
    assert (result.y == 0).all()
    assert (found >= optimum * (1 - 1e-9)).all()
    assert (found <= 1.002 * optimum).all()


def test_at_the_box_a_linear_model_agrees_with_scipy() -> None:
    """Many pixels at the edge: SLSQP for L2, a linear programme for Linf."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        weight, clean = rng.normal(size=12), rng.choice([0.0, 0.03, 0.5, 0.97, 1.0], size=12)
        best, least = np.where(weight > 0, 0.0, 1.0) @ weight, clean @ weight
        bias = -(best + 0.5 * (least - best))  # half of what the box allows has to be given up
        x = torch.tensor(clean).reshape(1, 1, 3, 4)
        model = two_classes(torch.tensor(weight), bias)
        solved = minimize(
            lambda q, c=clean: ((q - c) ** 2).sum(),
            np.where(weight > 0, 0.0, 1.0),
            bounds=[(0, 1)] * 12,
            constraints={"type": "ineq", "fun": lambda q, w=weight, b=bias: -(w @ q + b)},
            options={"maxiter": 500, "ftol": 1e-12},
        )
        l2 = MinNorm()(model, x)
        assert l2.success.all()
        assert l2.l2.item() == pytest.approx(np.sqrt(solved.fun), rel=5e-3)
        linf = MinNorm(norm="linf")(model, x)
        assert linf.success.all()
        assert linf.linf.item() == pytest.approx(_programme(clean, weight, -bias), rel=5e-3)


def _programme(clean: np.ndarray, weight: np.ndarray, most: float) -> float:
    """Smallest c with |q - clean| <= c, <weight, q> <= most, q in the box."""
    n, one = len(clean), np.ones((len(clean), 1))
    above = np.vstack([np.hstack([np.eye(n), -one]), np.hstack([-np.eye(n), -one]), [*weight, 0.0]])
    limits = np.concatenate([clean, -clean, [most]])
    solved = linprog([0.0] * n + [1.0], A_ub=above, b_ub=limits, bounds=[(0, 1)] * n + [(0, None)])
    return float(solved.fun)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.02, 0.98))
def test_the_smallest_ball_is_that_of_the_linear_programme(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    clean = rng.choice([0.0, 1.0, *rng.uniform(size=3)], size=9)
    x, weight = rng.uniform(size=9), rng.normal(size=9)
    best = np.where(weight > 0, 0.0, 1.0) @ weight
    most = best + share * (clean @ weight - best)
    value = x @ weight - most  # <weight, q> <= most is value + <weight, q - x> <= 0
    rows = (torch.tensor(values)[None] for values in (x, clean, weight))
    found = smallest_linf(*rows, torch.tensor([value]))
    assert found.item() == pytest.approx(_programme(clean, weight, most), abs=1e-7)


class Sphere(nn.Module):
    """Class 1 outside of a sphere around the middle grey."""

    def forward(self, x: Tensor) -> Tensor:
        away = (x.flatten(1) - 0.5).square().sum(dim=1) - 0.16
        return torch.stack([-away, away], dim=1)


def test_closed_form_of_a_bent_boundary() -> None:
    """From a point inside of a sphere of radius .4 the nearest one outside lies straight away from the middle."""
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(6, 16, generator=generator, dtype=torch.float64)
    direction /= direction.norm(dim=1, keepdim=True)
    radius = torch.tensor([0.02, 0.1, 0.2, 0.3, 0.35, 0.39], dtype=torch.float64)
    x = (0.5 + radius[:, None] * direction).reshape(6, 1, 4, 4)
    result = MinNorm()(Sphere(), x)
    assert result.success.all()
    assert (result.l2 >= 0.4 - radius).all()
    assert (result.l2 <= 1.005 * (0.4 - radius)).all()


def test_nearer_than_carlini_and_wagner_with_a_fraction_of_the_gradients(
    trained: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x = digits[0][1000:1032]
    theirs = CarliniWagner(max_iterations=200, binary_search_steps=9, lr=2e-2)(trained, x)
    fast, best = (MinNorm(quality=quality)(trained, x) for quality in ("fast", "best"))
    assert theirs.success.all()
    assert fast.success.all()
    assert best.success.all()
    assert fast.l2.mean() <= theirs.l2.mean()
    assert best.l2.mean() <= fast.l2.mean()
    assert fast.passes.double().mean() <= theirs.passes.double().mean() / 20


@NORMS
def test_best_is_nearer_than_fast(norm: str, trained: nn.Module, images: Tensor) -> None:
    """In Linf both begin with the same walk, so that no image is further away."""
    model, x = trained.double(), images.double()
    try:
        best = MinNorm(norm=norm, quality="best")(model, x)
        fast = MinNorm(norm=norm, quality="fast")(model, x)
    finally:
        trained.float()
    name = "l2" if norm == "l2" else "linf"
    assert getattr(best, name).mean() < getattr(fast, name).mean()
    assert norm == "l2" or (best.linf <= fast.linf).all()
    assert best.success.all()
    assert fast.success.all()


@NORMS
@pytest.mark.parametrize("targeted", [False, True])
def test_confidence_is_reached_by_every_success(
    norm: str, targeted: bool, trained: nn.Module, images: Tensor
) -> None:
    low = MinNorm(norm=norm, targeted=targeted)(trained, images)
    high = MinNorm(norm=norm, targeted=targeted, confidence=4.0)(trained, images)
    won = margin(trained(high.x_adv), high.y, high.target)
    assert high.success.all()
    assert (won >= 4).all()
    name = "l2" if norm == "l2" else "linf"
    assert (getattr(high, name) > getattr(low, name)).all()


def test_walks_to_a_class_find_more_than_that_to_the_nearest(trained: nn.Module, images: Tensor) -> None:
    """The untargeted distance is never above the smallest targeted one by more than the search's own scatter."""
    untargeted = MinNorm(quality="best")(trained, images)
    targeted = torch.stack(
        [
            MinNorm(targeted=True)(trained, images, untargeted.y, y_target=(untargeted.y + shift) % 10).l2
            for shift in range(1, 10)
        ]
    )
    assert (untargeted.l2 <= 1.05 * targeted.amin(dim=0)).all()


@NORMS
def test_what_is_misclassified_already_stays_as_it_is(norm: str, trained: nn.Module, images: Tensor) -> None:
    """And no target sees an empty batch."""
    wrong = (trained(images).argmax(1) + 1) % 10
    result = MinNorm(norm=norm)(lambda x: trained(x.view(len(x), -1).view(-1, 1, 8, 8)), images, wrong)
    assert result.success.all()
    assert torch.equal(result.x_adv, images)
    assert (result.passes == 0).all()


class Scaled(torch.autograd.Function):
    """The identity, with a gradient times a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


@NORMS
@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_without_a_gradient_the_images_stay_finite(
    norm: str, factor: float, trained: nn.Module, images: Tensor
) -> None:
    result = MinNorm(norm=norm)(lambda x: trained(Scaled.apply(x, factor)), images)
    assert not result.success.any()
    assert (result.x_adv >= 0).all()
    assert (result.x_adv <= 1).all()
    assert (result.passes > 0).all()
    assert (result.zero_gradients == result.passes).all()


@NORMS
def test_successes_on_a_prepared_copy_are_the_original_s(
    norm: str, trained: nn.Module, images: Tensor
) -> None:
    target = prepare(trained, images)
    assert target.setup.fold
    result = MinNorm(norm=norm)(target, images)
    assert result.success.all()
    assert torch.equal(result.predicted, trained(result.x_adv).argmax(1))


@NORMS
@pytest.mark.parametrize("quality", ["fast", "best"])
def test_two_classes_leave_out_the_walks_to_others(norm: str, quality: str) -> None:
    attack = MinNorm(norm=norm, quality=quality)
    assert all(walk.rival in (None, 0) for walk in attack.plan(2))
    assert attack.max_passes(10) == sum(walk.length for walk in PLANS[norm, quality])
    assert (attack.max_passes(2) < attack.max_passes(10)) == (quality == "best")


@NORMS
def test_two_classes(norm: str) -> None:
    model = two_classes(torch.ones(16, dtype=torch.float64), -8.5)
    x = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    result = MinNorm(norm=norm, quality="best")(model, x)
    assert result.success.all()
    assert result.linf.item() == pytest.approx(0.5 / 16, rel=5e-3)


@NORMS
def test_logits_of_another_type(norm: str, trained: nn.Module, images: Tensor) -> None:
    double = copy.deepcopy(trained).double()
    result = MinNorm(norm=norm)(lambda x: double(x.double()), images)
    assert result.success.all()
    assert result.x_adv.dtype == torch.float32


def test_the_smallest_ball_where_the_gradient_is_thin() -> None:
    """A root at which every pixel that counts meets the edge, and a goal reached without any gradient."""
    x, thin = torch.full((2, 2), 0.5), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert smallest_linf(x, x, thin, torch.tensor([0.5, -0.5])).tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [({"norm": "l1"}, "norm"), ({"quality": "better"}, "quality"), ({"confidence": -1.0}, "confidence")],
)
def test_wrong_options(wrong: dict, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        MinNorm(**wrong)
