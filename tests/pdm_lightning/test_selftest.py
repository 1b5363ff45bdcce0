"""The self-test of attacks: sound ones reach what is known to be there, others do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks import (
    BIM,
    FGSM,
    JSMA,
    Attack,
    CarliniWagner,
    ClassifierSquare,
    Mimicry,
    MinNorm,
    NoAttack,
    OrthogonalPGD,
    SelectivePGD,
    Square,
)
from attacks.base import Crafted, Task
from pdm_lightning.models import Classifier
from pdm_lightning.stages.selftest import affordable, find_hidden, known_rate, reference

IMAGES = 60
SOUND: dict[str, Attack] = {
    "bim": BIM(eps=0.1),
    "bim, one class": BIM(eps=0.1, targeted=True, target_class="next"),
    "dlr": BIM(eps=0.05, loss="dlr", iterations=20),
    "dlr, one class": BIM(eps=0.05, loss="dlr", targeted=True),
    "fgsm": FGSM(eps=0.05),
    "tiny ball": FGSM(eps=0.004),
    "whole box": FGSM(eps=1.0),
    "selective": SelectivePGD(eps=0.1, iterations=20, restarts=1),
    "selective l2": SelectivePGD(norm="l2", eps=2.0, iterations=20, restarts=1),
    "small l2": SelectivePGD(norm="l2", eps=0.25, iterations=20, restarts=1),
    "orthogonal": OrthogonalPGD(eps=0.1, iterations=20, restarts=1),
    "mimicry": Mimicry(eps=0.1, iterations=20, restarts=1),
    "square": Square(eps=0.1, queries=400),
    "square on logits": ClassifierSquare(eps=0.1, queries=400),
    "nearest l2": MinNorm(norm="l2"),
    "nearest linf": MinNorm(norm="linf", confidence=2.0),
    "jsma": JSMA(),
    "carlini wagner": CarliniWagner(max_iterations=200, lr=0.05, binary_search_steps=4, initial_const=1.0),
    "high confidence": CarliniWagner(
        max_iterations=200, lr=0.05, binary_search_steps=4, initial_const=1.0, confidence=20.0
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_attacks_reach_the_known_rate(name: str) -> None:
    told = known_rate(SOUND[name], IMAGES, 0)
    assert told["n"] == IMAGES or name in ("selective l2", "small l2", "whole box")
    assert told["expected"] >= 0.4
    assert told["rate"] == pytest.approx(told["expected"], abs=0.01 + 1 / told["n"])


class WrongSign(BIM):
    def craft(self, task: Task) -> Crafted:
        crafted = super().craft(task)
        return replace(crafted, x_adv=(2 * task.x - crafted.x_adv).clamp(0, 1))


class WrongWay(CarliniWagner):
    def craft(self, task: Task) -> Crafted:
        crafted = super().craft(task)
        return replace(crafted, x_adv=(2 * task.x - crafted.x_adv).clamp(0, 1))


class Half(BIM):
    """Uses half of its ball."""

    def craft(self, task: Task) -> Crafted:
        return BIM(eps=self.eps / 2).craft(task)


class HalfL2(SelectivePGD):
    def craft(self, task: Task) -> Crafted:
        return SelectivePGD(norm="l2", eps=self.eps / 2, iterations=20, restarts=1).craft(task)


@pytest.mark.parametrize(
    "attack",
    [*(kind(eps=eps) for kind in (WrongSign, Half) for eps in (0.01, 0.1, 0.3)), HalfL2(norm="l2", eps=2.0)],
)
def test_unsound_attacks_do_not(attack: Attack) -> None:
    told = known_rate(attack, IMAGES, 0)
    assert told["rate"] < told["expected"] - 0.1


def test_nothing_is_expected_of_no_attack() -> None:
    assert known_rate(NoAttack(), 20, 0) == {"rate": 0.0, "nearer": 0.0, "expected": 0.0, "n": 20}


def test_a_lean_attack_reaches_nothing_and_goes_the_right_way() -> None:
    """Ten steps of 0.005 change no prediction; of a wrong sign they raise every margin."""
    lean = {"max_iterations": 10, "lr": 0.005}
    assert (
        known_rate(CarliniWagner(**lean), 30, 0)["rate"],
        known_rate(CarliniWagner(**lean), 30, 0)["nearer"],
    ) == (
        0.0,
        1.0,
    )
    assert known_rate(WrongWay(**lean), 30, 0)["nearer"] == 0.0


def test_reference_is_sound() -> None:
    model, x, y = reference()
    lead = (model(x)[:, 1] - model(x)[:, 0]) * (2 * y - 1)
    assert len(x) > 340 and (lead > 0).all()
    assert float(lead.detach().median()) == pytest.approx(4, abs=0.05)


class Net(nn.Module):
    """A small convolutional network of 64 features; on a grid, its gradient is zero."""

    def __init__(self, grid: float = 0.0) -> None:
        super().__init__()
        self.grid = grid
        layers = [nn.Conv2d(1, 12, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(12, 16, 3, stride=2)]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(144, 64))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.layers(x)
        return (z / self.grid).round() * self.grid if self.grid else z


def network(grid: float = 0.0) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(Net(grid), 64, 10).eval()


@pytest.mark.parametrize(
    "attack",
    [
        BIM(eps=0.1, loss="margin", iterations=20, step=0.02),
        SelectivePGD(norm="l2", eps=1.0, iterations=30, restarts=1),
        BIM(eps=0.1, loss="dlr", iterations=20, step=0.02),
        ClassifierSquare(eps=0.1),
    ],
)
def test_sound_attacks_find_what_is_hidden(attack: Attack) -> None:
    _, x, _ = reference()
    told = find_hidden(attack, network(), x[:8], torch.arange(8), 0)
    assert told["n"] + told["skipped"] == 8
    assert told["n"] >= 6 and told["found"] >= 0.95 * told["n"]
    assert told["random"] <= 3


def test_masked_gradients_hide() -> None:
    """Zero gradients everywhere: what is known to be there is not found, though random search could."""
    _, x, _ = reference()
    told = find_hidden(
        BIM(eps=0.1, loss="margin", iterations=20), network(grid=0.005), x[:8], torch.arange(8), 0
    )
    assert told["n"] >= 6 and told["found"] < 0.95 * told["n"]


def test_the_model_is_left_as_it_was_and_seeds_decide() -> None:
    _, x, _ = reference()
    model = network().train()
    flags = [p.requires_grad for p in model.parameters()]
    attack = BIM(eps=0.1, loss="margin", iterations=5)
    first = find_hidden(attack, model, x[:3], torch.tensor([4, 9, 2]), 1)
    assert model.training and [p.requires_grad for p in model.parameters()] == flags
    parts = [find_hidden(attack, model, x[i : i + 1], torch.tensor([n]), 1) for i, n in enumerate((4, 9, 2))]
    assert first == {key: sum(part[key] for part in parts) for key in first}


def test_slow_attacks_look_at_fewer_images() -> None:
    assert affordable(BIM()) == 16
    assert affordable(SelectivePGD()) == 13
    assert affordable(ClassifierSquare(queries=5000)) == 4
