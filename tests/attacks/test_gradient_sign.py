"""FGSM and BIM: budgets, by hand, and against foolbox and ART."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attacks import BIM, FGSM

TIMES = settings(max_examples=30, deadline=None)


def random_linear(seed: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    generator = torch.Generator().manual_seed(seed)
    model[1].weight.data = torch.randn(4, 12, generator=generator)
    model[1].bias.data = torch.randn(4, generator=generator)
    return model


def random_images(seed: int) -> Tensor:
    """Three images; a third of the pixels at 0 or 1."""
    x = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return ((x - 0.5) * 1.5 + 0.5).clamp(0, 1)


@TIMES
@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from(["ce", "margin"]), st.booleans())
def test_fgsm_keeps_its_budget(seed: int, eps: float, loss: str, targeted: bool) -> None:
    x = random_images(seed)
    result = FGSM(eps=eps, loss=loss, targeted=targeted)(random_linear(seed), x)
    assert result.linf.max() <= eps + 1e-6
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1


@TIMES
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0.001, 2), st.booleans(), st.integers(1, 5))
def test_bim_keeps_its_budget(seed: int, eps: float, step: float, start: bool, iterations: int) -> None:
    x = random_images(seed)
    result = BIM(eps=eps, step=step, iterations=iterations, random_start=start)(random_linear(seed), x)
    assert result.linf.max() <= eps + 1e-6
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    assert result.passes.tolist() == [iterations] * 3


@pytest.mark.parametrize("attack", [FGSM(eps=0), BIM(eps=0), BIM(eps=0, step=0.1, random_start=True)])
def test_without_a_budget_nothing_moves(attack: FGSM) -> None:
    x = random_images(0)
    assert torch.equal(attack(random_linear(0), x).x_adv, x)


def test_fgsm_by_hand() -> None:
    """Logits (a, -b): the loss of class 0 falls with a and rises with -b, i.e. falls with b."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    model[1].weight.data = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    model[1].bias.data.zero_()
    x = torch.tensor([[0.95, 0.05]]).reshape(1, 1, 1, 2)
    away = FGSM(eps=0.1)(model, x, torch.tensor([0])).x_adv.flatten()
    assert away.tolist() == pytest.approx([0.85, 0.0])  # the second is clipped to the box
    towards = FGSM(eps=0.1, targeted=True)(
        model, x, torch.tensor([1]), y_target=torch.tensor([0])
    ).x_adv.flatten()
    assert towards.tolist() == pytest.approx([1.0, 0.15])


def test_random_start_differs_by_example_and_repeats_by_index() -> None:
    x = torch.full((4, 1, 3, 3), 0.5)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    nn.init.zeros_(flat[1].weight)  # no gradient: what is left is the start
    attack = BIM(eps=0.2, random_start=True)
    first = attack(flat, x, index=[7, 8, 9, 7]).x_adv
    assert torch.equal(first[0], first[3])
    assert (first[0] != first[1]).all()
    assert 0.1 < (first - 0.5).abs().max() <= 0.2 + 1e-6
    assert not torch.equal(attack(flat, x, index=[7, 8, 9, 7], seed=1).x_adv, first)


def test_the_loss_goes_up(trained: nn.Module, images: Tensor) -> None:
    loss = nn.CrossEntropyLoss()
    fgsm, bim = FGSM(eps=0.1)(trained, images), BIM(eps=0.1)(trained, images)
    clean, one, ten = (loss(trained(x), fgsm.y) for x in (images, fgsm.x_adv, bim.x_adv))
    assert clean < one < ten


@pytest.mark.parametrize("targeted", [False, True])
def test_equals_foolbox(targeted: bool, trained: nn.Module, images: Tensor) -> None:
    foolbox = pytest.importorskip("foolbox")
    bounded = foolbox.PyTorchModel(trained, bounds=(0, 1), device="cpu")
    y = trained(images).argmax(1)
    goal = (y + 1) % 10
    criterion = foolbox.criteria.TargetedMisclassification(goal) if targeted else y
    ours = {"targeted": targeted, "target_class": "next"}
    bim = foolbox.attacks.LinfBasicIterativeAttack(steps=10, abs_stepsize=0.01, random_start=False)
    theirs = bim.run(bounded, images, criterion, epsilon=0.1)
    assert (BIM(eps=0.1, **ours)(trained, images, y).x_adv - theirs).abs().max() <= 1e-6
    if not targeted:  # foolbox's FGSM has no targeted form
        theirs = foolbox.attacks.FGSM(random_start=False).run(bounded, images, criterion, epsilon=0.1)
        assert (FGSM(eps=0.1)(trained, images, y).x_adv - theirs).abs().max() <= 1e-6


@pytest.mark.parametrize("targeted", [False, True])
def test_equals_art(targeted: bool, trained: nn.Module, images: Tensor) -> None:
    estimators = pytest.importorskip("art.estimators.classification")
    evasion = pytest.importorskip("art.attacks.evasion")
    loss = nn.CrossEntropyLoss(reduction="sum")
    wrapped = estimators.PyTorchClassifier(
        trained, loss, (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu"
    )
    y = trained(images).argmax(1)
    aim = np.eye(10)[((y + 1) % 10 if targeted else y).numpy()]
    ours = {"eps": 0.1, "targeted": targeted, "target_class": "next"}
    fgsm = evasion.FastGradientMethod(wrapped, eps=0.1, targeted=targeted)
    theirs = torch.from_numpy(fgsm.generate(images.numpy(), aim))
    assert (FGSM(**ours)(trained, images, y).x_adv - theirs).abs().max() <= 1e-6
    bim = evasion.BasicIterativeMethod(
        wrapped, eps=0.1, eps_step=0.01, max_iter=10, targeted=targeted, verbose=False
    )
    theirs = torch.from_numpy(bim.generate(images.numpy(), aim))
    assert (BIM(**ours)(trained, images, y).x_adv - theirs).abs().max() <= 1e-6
