"""C&W: the closed form, foolbox, confidence, failures, and each trap of the public libraries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attacks import CarliniWagner
from attacks.objectives import margin
from attacks.penalty import SMOOTHING, _Walk


@pytest.mark.parametrize("confidence", [0.0, 2.0])
def test_closed_form_of_a_linear_model(confidence: float) -> None:
    """Nearest x' with o_1 - o_0 >= k is at (o_0 - o_1 + k) / ||w_0 - w_1||, here never at the box."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, generator=generator, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    model[1].weight.data = torch.stack([weight, -weight])
    model[1].bias.data = torch.stack([-0.5 * weight.sum(), 0.5 * weight.sum()])  # boundary through mid-grey
    distance = torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    x = (0.5 + distance[:, None] * weight / weight.norm()).reshape(4, 1, 8, 8)
    result = CarliniWagner(confidence=confidence, max_iterations=200, lr=1e-2)(model, x)
    optimum = distance + confidence / (2 * weight.norm())
    assert result.success.all()
    assert (result.y == 0).all()
    assert (result.l2 >= optimum).all()
    assert (result.l2 <= 1.01 * optimum).all()


def test_targeted_closed_form() -> None:
    """With three classes the target's half-space alone matters where the third class is far below."""
    weight = torch.zeros(3, 16, dtype=torch.float64)
    weight[0, :8], weight[1, 8:] = 1.0, 1.0
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    model[1].weight.data, model[1].bias.data = weight, torch.tensor([1.0, 0.0, -50.0], dtype=torch.float64)
    x = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    attack = CarliniWagner(targeted=True, max_iterations=200, lr=1e-2)
    result = attack(model, x, y_target=torch.tensor([1]))
    assert result.predicted.tolist() == [1]
    assert 0.25 <= result.l2.item() <= 0.25 * 1.01  # (o_0 - o_1) / ||w_0 - w_1|| = 1 / sqrt(16)


@pytest.mark.parametrize("targeted", [False, True])
def test_no_worse_than_foolbox(targeted: bool, trained: nn.Module, images: Tensor) -> None:
    foolbox = pytest.importorskip("foolbox")
    x = images[:12]
    y = trained(x).argmax(1)
    goal = (y + 1) % 10
    shared = {"binary_search_steps": 9, "confidence": 0, "initial_const": 1e-2, "abort_early": True}
    attack = CarliniWagner(max_iterations=80, lr=2e-2, targeted=targeted, target_class="next", **shared)
    ours = attack(trained, x, y)
    reference = foolbox.attacks.L2CarliniWagnerAttack(steps=80, stepsize=2e-2, **shared)
    criterion = foolbox.criteria.TargetedMisclassification(goal) if targeted else y
    bounded = foolbox.PyTorchModel(trained, bounds=(0, 1), device="cpu")
    theirs, _, success = reference(bounded, x, criterion, epsilons=None)
    both = ours.success & success
    assert ours.success.sum() >= success.sum()
    assert both.sum() >= 10
    distance = (theirs - x).flatten(1).norm(dim=1)
    assert ours.l2[both].mean() <= 1.01 * distance[both].mean()


def test_confidence_is_reached_by_every_success(trained: nn.Module, images: Tensor) -> None:
    low = CarliniWagner(confidence=0, max_iterations=40, binary_search_steps=5, lr=4e-2)(trained, images)
    high = CarliniWagner(confidence=4, max_iterations=40, binary_search_steps=5, lr=4e-2)(trained, images)
    won = margin(trained(high.x_adv), high.y)
    assert high.success.float().mean() > 0.7
    assert torch.equal(high.success, (won >= 4) & (high.predicted != high.y))
    both = high.success & low.success
    assert (high.l2[both] > low.l2[both]).all()


def test_short_of_the_confidence_is_no_success(trained: nn.Module, images: Tensor) -> None:
    """No image reaches a margin of 1000: also flipped ones are failures, returned at their largest margin."""
    fields = {"confidence": 1000, "lr": 5e-2, "binary_search_steps": 1, "initial_const": 1000.0}
    failed = CarliniWagner(max_iterations=20, **fields)(trained, images)
    assert not failed.success.any()
    assert (failed.predicted != failed.y).float().mean() > 0.5
    shorter = CarliniWagner(max_iterations=4, **fields)(trained, images)
    assert (margin(trained(failed.x_adv), failed.y) >= margin(trained(shorter.x_adv), failed.y)).all()


def test_failed_examples_are_best_attempts_not_black_images(trained: nn.Module, images: Tensor) -> None:
    """Too few steps to succeed: every image is near its original, and no further from the boundary."""
    result = CarliniWagner(max_iterations=2, binary_search_steps=3, lr=1e-4)(trained, images)
    failed = ~result.success
    assert failed.sum() >= 12
    assert result.l2[failed].max() < 0.1
    assert (result.l2[failed] > 0).all()
    progress = margin(trained(result.x_adv), result.y) - margin(trained(images), result.y)
    assert (progress[failed] > 0).all()


def test_the_last_iterate_is_evaluated() -> None:
    """One step across the boundary: the only success is the iterate after the last update."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    model[1].weight.data, model[1].bias.data = torch.tensor([[0.0], [1.0]]), torch.tensor([0.51, 0.0])
    x = torch.full((1, 1, 1, 1), 0.5)
    result = CarliniWagner(max_iterations=1, binary_search_steps=1, lr=0.1, initial_const=10.0)(model, x)
    assert result.success.all()
    # Adam's first step is lr in tanh space: (tanh(0.1) + 1) / 2
    assert result.x_adv.item() == pytest.approx(0.5498340, abs=1e-6)
    assert result.passes.item() == 1


def test_saturated_pixels_move() -> None:
    """Also where every pixel is saturated and the loss stands still at first, the search is not given up."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model[1].weight.data, model[1].bias.data = (
        torch.tensor([[1.0] * 4, [-1.0] * 4]),
        torch.tensor([-7.0, 0.0]),
    )
    x = torch.ones(1, 1, 2, 2)  # logits (-3, -4): the boundary is at a mean of 7/8
    result = CarliniWagner(max_iterations=150, lr=0.1)(model, x)
    assert result.success.all()
    assert result.l2.item() == pytest.approx(0.25, rel=0.02)


def test_constants_are_of_each_example() -> None:
    """An easy and a hard image at once: each ends where it does alone, near its own optimum."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    model[1].weight.data = torch.stack([torch.ones(16), -torch.ones(16)]).double()
    model[1].bias.data = torch.tensor([-16.0, 0.0]).double()  # boundary at a mean pixel of 1/2
    x = torch.stack([torch.full((1, 4, 4), 0.52), torch.full((1, 4, 4), 0.9)]).double()
    together = CarliniWagner(max_iterations=200, lr=1e-2)(model, x)
    optimum = torch.tensor([0.08, 1.6]).double()  # sqrt(16) * (mean - 1/2)
    assert together.success.all()
    assert ((together.l2 - optimum).abs() < 0.01 * optimum).all()


def test_a_repeated_search_at_the_upper_bound_adds_nothing(trained: nn.Module, images: Tensor) -> None:
    """The skipped last step: searching again at a constant that succeeded gives the very same iterates."""
    attack = CarliniWagner(max_iterations=30, binary_search_steps=1, lr=2e-2, initial_const=5.0)
    once = attack(trained, images)
    again = attack(trained, images)
    assert once.success.any()
    assert torch.equal(once.x_adv, again.x_adv)
    three = CarliniWagner(max_iterations=30, binary_search_steps=2, lr=2e-2, initial_const=5.0)(
        trained, images
    )
    assert torch.equal(three.x_adv[once.success], once.x_adv[once.success])
    assert (three.passes[once.success] == once.passes[once.success]).all()
    assert (three.passes[~once.success] > once.passes[~once.success]).all()


def test_early_abort_saves_gradients_and_costs_little(trained: nn.Module, images: Tensor) -> None:
    early = CarliniWagner(max_iterations=60, lr=2e-2)(trained, images[:8])
    full = CarliniWagner(max_iterations=60, lr=2e-2, abort_early=False)(trained, images[:8])
    assert (full.passes >= early.passes).all()
    assert early.passes.sum() < 0.9 * full.passes.sum()
    assert early.success.sum() >= full.success.sum() - 1
    both = early.success & full.success
    assert early.l2[both].mean() < 1.1 * full.l2[both].mean()


def test_images_already_misclassified_cost_no_distance(trained: nn.Module, images: Tensor) -> None:
    wrong = (trained(images).argmax(1) + 1) % 10
    result = CarliniWagner(max_iterations=5)(trained, images, wrong)
    assert result.success.all()
    assert result.linf.max() <= 1 - SMOOTHING


def test_adam_equals_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    walk = _Walk(x, x, torch.arange(2), torch.ones(2, dtype=torch.float64))
    parameter = nn.Parameter(walk.w.clone())
    optimizer = torch.optim.Adam([parameter], lr=0.03)
    for _ in range(20):
        gradient = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        parameter.grad = gradient
        optimizer.step()
        walk.adam(gradient, 0.03)
    assert (walk.w - parameter).abs().max() < 1e-12
