"""Adversarial images in eight bits: inside the ball that they came from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks import SelectivePGD
from attacks.watched import Look
from pdm_lightning.stages.rounding import LEVELS, directed, held, outside, rounded


def images(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clean images of 256 levels, and noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (40, 3, 6, 6), generator=generator) / LEVELS
    return x, torch.randn(x.shape, generator=generator)


def levels(x: Tensor) -> Tensor:
    return (x * LEVELS - (x * LEVELS).round()).abs()


@pytest.mark.parametrize("eps", [0.006, 0.0102, 0.1])
@pytest.mark.parametrize("up", [True, False])
def test_a_linf_ball_is_not_left(eps: float, up: bool) -> None:
    x, noise = images()
    x_adv, attack = (x + eps * noise.sign()).clamp(0, 1), {"eps": eps}
    wish = directed(x_adv, noise if up else -noise)
    free = wish.clamp(0, LEVELS) / LEVELS
    kept = rounded(wish, x_adv, x, attack)
    assert outside(attack, free, x).any() == up  # the rounding that would be wished for leaves it
    assert not outside(attack, kept, x).any() and float(levels(kept).max()) < 1e-4
    inside = (free - x).abs() <= eps
    assert torch.equal(kept[inside], free[inside])  # and nothing else is touched


def test_an_l2_ball_is_not_left() -> None:
    x, noise = images()
    step = noise / torch.linalg.vector_norm(noise.flatten(1), dim=1).view(-1, 1, 1, 1)
    x_adv, attack = (x + 0.2 * step).clamp(0, 1), {"eps": 0.2, "norm": "l2"}
    wish = directed(x_adv, noise)
    assert outside(attack, wish.clamp(0, LEVELS) / LEVELS, x).any()
    kept = rounded(wish, x_adv, x, attack)
    assert not outside(attack, kept, x).any() and float(levels(kept).max()) < 1e-4


def test_the_nearest_image_has_no_ball() -> None:
    x, noise = images()
    x_adv = (x + 0.03 * noise).clamp(0, 1)
    kept = rounded((x_adv * LEVELS).round(), x_adv, x, {"norm": "l2"})
    assert torch.allclose(kept, (x_adv * LEVELS).round() / LEVELS) and not outside({}, kept, x).any()


def test_a_clean_image_between_levels_leaves_no_level_inside() -> None:
    x = torch.full((1, 1, 2, 2), 100.5 / LEVELS)
    attack = {"eps": 0.1 / LEVELS}
    assert outside(attack, rounded((x * LEVELS).round(), x, x, attack), x).all()


class Between:
    """Misclassified where the first pixel is above 0.6, unflagged where the second is at most `limit`."""

    def __init__(self, limit: float) -> None:
        self.threshold, self.scale, self.references, self.reference_labels = limit, 1.0, None, None

    def logits(self, x: Tensor) -> Tensor:
        return self.look(x).logits

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        first, second = x.flatten(1)[:, 0], x.flatten(1)[:, 1]
        return Look(torch.stack([0.6 - first, first - 0.6], dim=1), second.double(), x.flatten(1))

    def limits(self, quantile: float) -> Tensor:
        return torch.full((2,), self.threshold)


@pytest.mark.parametrize(
    ("second", "limit", "holds"),
    [(120.4, 120.5, True), (120.6, 120.9, True), (120.6, 119.9, False)],
)
def test_some_rounding_keeps_both_goals(second: float, limit: float, holds: bool) -> None:
    """120.6 goes to 121 by itself, which is flagged; along the score's gradient it goes to 120."""
    x = torch.zeros(1, 1, 1, 2)
    x_adv = torch.tensor([180.2, second]).view(1, 1, 1, 2) / LEVELS
    hands: Any = SimpleNamespace(attack=SelectivePGD(eps=1.0), target=Between(limit / LEVELS))
    assert held(hands, x_adv, x, torch.zeros(1, dtype=torch.int64), None, {"eps": 1.0}).tolist() == [holds]


def test_a_rounding_outside_the_ball_holds_nothing() -> None:
    x = torch.full((1, 1, 1, 2), 160.5 / LEVELS)
    hands: Any = SimpleNamespace(attack=SelectivePGD(eps=1.0), target=Between(1.0))
    attack = {"eps": 0.1 / LEVELS}
    assert held(hands, x, x, torch.zeros(1, dtype=torch.int64), None, attack).tolist() == [False]
