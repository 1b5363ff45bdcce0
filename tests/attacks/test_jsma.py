"""JSMA: by hand, the budget of pixels, and what is left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attacks import JSMA


def linear(weight: list[list[float]], bias: list[float]) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(weight[0]), len(weight)))
    model[1].weight.data, model[1].bias.data = torch.tensor(weight), torch.tensor(bias)
    return model


def test_targeted_by_hand() -> None:
    """Towards class 1: saliency 3*1, 1*4, and a pixel that helps every class; one pixel suffices."""
    model = linear([[-1.0, -4.0, 0.0], [3.0, 1.0, 5.0], [0.0, 0.0, 5.0]], [2.0, 0.0, -9.0])
    x = torch.zeros(1, 1, 1, 3)
    attack = JSMA(pixels_per_step=1)
    result = attack(model, x, y_target=torch.tensor([1]))
    # alpha = (3, 1, 5), beta = (-1, -4, 5): alpha * |beta| = 3, 4, and the third has beta > 0
    assert result.x_adv.flatten().tolist() == [0.0, 1.0, 0.0]
    assert result.success.tolist() == [True]
    assert result.passes.tolist() == [2]
    pair = JSMA()(model, x, y_target=torch.tensor([1]))
    assert pair.x_adv.flatten().tolist() == [1.0, 1.0, 0.0]


def test_untargeted_by_hand() -> None:
    """Away from class 0: the pixel that lowers it and raises the others' sum most."""
    model = linear([[-1.0, -3.0, 2.0], [2.0, 1.0, 0.0], [0.0, 1.0, 9.0]], [1.0, 0.0, -9.0])
    result = JSMA(pixels_per_step=1, targeted=False)(model, torch.zeros(1, 1, 1, 3))
    # own (-1, -3, 2), others (2, 2, 9): 1*2, 3*2, and the third raises its own class
    assert result.x_adv.flatten().tolist() == [0.0, 1.0, 0.0]
    assert result.target is None
    assert result.success.tolist() == [True]


def test_negative_theta_darkens() -> None:
    model = linear([[1.0, 4.0, 0.0], [-3.0, -1.0, 5.0]], [0.0, 3.0])
    x = torch.ones(1, 1, 1, 3) * torch.tensor([1.0, 0.6, 0.0])
    result = JSMA(theta=-1.0, pixels_per_step=1)(model, x, torch.tensor([0]), y_target=torch.tensor([1]))
    assert result.success.tolist() == [True]
    result = JSMA(theta=-0.25, pixels_per_step=1, max_steps=1)(
        linear([[1.0, 4.0], [-3.0, -1.0]], [9.0, 0.0]), x[..., :2]
    )
    assert result.x_adv.flatten().tolist() == pytest.approx([1.0, 0.35])


def test_saturated_pixels_are_left_out() -> None:
    """The most salient pixel is at 1 already; where none is left, the example ends, a failure."""
    model = linear([[0.0, 0.0], [9.0, 1.0], [-9.0, -1.0]], [20.0, 0.0, 0.0])
    x = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    result = JSMA(pixels_per_step=1)(model, x, y_target=torch.tensor([1]))
    assert result.x_adv.flatten().tolist() == [1.0, 1.0]
    assert not result.success.any()
    assert result.passes.tolist() == [4]  # the second step found no pixel


@pytest.mark.parametrize("theta", [1.0, 0.3, -1.0])
@pytest.mark.parametrize("count", [1, 2])
def test_each_pixel_once_and_at_most_the_budget(theta: float, count: int, digits: tuple) -> None:
    """A target that cannot be reached: the budget is spent to the end, no pixel moves by more than theta."""
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    model = linear(weight.tolist(), [500.0, 0.0, -500.0])
    x = digits[0][:10]
    result = JSMA(theta=theta, max_steps=5, pixels_per_step=count)(model, x, y_target=torch.full((10,), 2))
    change = (result.x_adv - x).flatten(1)
    assert not result.success.any()
    assert torch.equal(result.l0, torch.full((10,), 5.0 * count))
    assert change.abs().max() <= abs(theta) + 1e-6
    assert (change * theta >= 0).all()


def test_two_hundred_changes_at_most() -> None:
    weight = torch.zeros(2, 400)
    weight[0], weight[1] = -1.0, 1.0
    model = linear(weight.tolist(), [5000.0, 0.0])
    result = JSMA()(model, torch.zeros(1, 1, 20, 20))
    assert result.l0.tolist() == [200.0]
    assert result.passes.tolist() == [200]


def test_stops_at_the_goal(trained: nn.Module, images: Tensor) -> None:
    """One step less does not reach the target, so the attack stopped as soon as it could."""
    result = JSMA()(trained, images, seed=1)
    assert result.success.float().mean() > 0.5
    steps = int(result.passes[result.success].max()) // 2
    longest = (result.passes == 2 * steps) & result.success
    before = JSMA(max_steps=steps - 1)(trained, images, seed=1)
    assert not (before.success & longest).any()
    assert torch.equal(before.success & ~longest, result.success & ~longest)
    fooled = result.predicted != result.y
    assert (fooled | ~result.success).all()


def test_the_models_own_gradients(trained: nn.Module, images: Tensor) -> None:
    """One step on a network takes the pair that the Jacobian, row by row, ranks first."""
    x = images[:1].double()
    model = trained.double()
    try:
        y = model(x).argmax(1)
        target = (y + 1) % 10
        jacobian = torch.autograd.functional.jacobian(lambda v: model(v)[0], x).flatten(1)
        alpha, beta = jacobian[target[0]], jacobian.sum(0) - jacobian[target[0]]
        score = (alpha[:, None] + alpha) * -(beta[:, None] + beta)
        valid = (alpha[:, None] + alpha > 0) & (beta[:, None] + beta < 0)
        free = x.flatten() < 1
        valid &= (free[:, None] & free).triu(1)
        place = torch.where(valid, score, -1).argmax()
        result = JSMA(max_steps=1)(model, x, y_target=target)
    finally:
        trained.float()
    changed = (result.x_adv != x).flatten().nonzero().flatten()
    assert changed.tolist() == [int(place) // 64, int(place) % 64]
