"""Parts of set-ups, each with one thing wrong; a study names them as ``_target_``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks import BIM, FGSM, SelectivePGD
from attacks.base import Crafted, Task, loss_gradient
from attacks.geometry import Ball
from detection import Detector, Features, View
from pdm_lightning.data import ImageData, digits
from pdm_lightning.models import ResNet


class Masked(ResNet):
    """Embeddings on a coarse grid: a staircase, whose gradient is zero. Trained without it."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z if self.training else (z * 20).round() / 20


class Dicing(ResNet):
    """Another answer each time it is asked."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z if self.training else z + 0.2 * z.std() * torch.randn_like(z)


class Saturated(ResNet):
    """Logits a thousand times as large: the softmax is 0 and 1, and cross-entropy has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z if self.training else 1000 * z


class BetweenLevels(ResNet):
    """Goes by what no image file holds: turns round where pixels lie between the 256 levels."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        if self.training:
            return z
        grey = (x + 1) / 2 * 255
        between = (grey - grey.round()).abs().flatten(1).amax(dim=1, keepdim=True) > 0.2
        return torch.where(between, -5 * z, z)


def leaked_threshold(
    size: int = 8, channels: int | None = None, val_size: int = 257, split_seed: int = 0
) -> ImageData:
    """Digits whose validation images are test images."""
    data = digits(size=size, channels=channels, val_size=val_size, split_seed=split_seed)
    return replace(data, validation=(data.test[0][:val_size].clone(), data.test[1][:val_size].clone()))


def test_in_train(
    size: int = 8, channels: int | None = None, val_size: int = 257, split_seed: int = 0
) -> ImageData:
    """Digits whose training images hold the test images."""
    data = digits(size=size, channels=channels, val_size=val_size, split_seed=split_seed)
    images, labels = (torch.cat([mine, theirs]) for mine, theirs in zip(data.train, data.test, strict=True))
    return replace(data, train=(images, labels))


test_in_train.__test__ = False  # type: ignore[attr-defined]


@dataclass(frozen=True)
class WrongSign(BIM):
    """Goes down where it should go up."""

    def craft(self, task: Task) -> Crafted:
        crafted = super().craft(task)
        return replace(crafted, x_adv=(2 * task.x - crafted.x_adv).clamp(0, 1))


@dataclass(frozen=True)
class Overrun(BIM):
    """Takes half as much again as its radius."""

    def craft(self, task: Task) -> Crafted:
        return BIM(eps=1.5 * self.eps, loss=self.loss, iterations=self.iterations).craft(task)


@dataclass(frozen=True)
class Normalised(FGSM):
    """Works on images in [-1, 1] and forgets to turn them back."""

    def craft(self, task: Task) -> Crafted:
        crafted = super().craft(task)
        return replace(crafted, x_adv=2 * crafted.x_adv - 1)


@dataclass(frozen=True)
class Timid(BIM):
    """Steps of a hundredth of what it should take: a single step reaches further."""

    def craft(self, task: Task) -> Crafted:
        ball, x_adv = Ball("linf", self.eps), task.x.clone()
        for _ in range(self.iterations):
            step = self.eps / self.iterations / 100
            x_adv = ball.ascend(loss_gradient(self.loss, task, x_adv), x_adv, task.x, step)
        return Crafted(x_adv, torch.full_like(task.y, self.iterations), torch.zeros_like(task.y))


@dataclass(frozen=True, kw_only=True)
class Idle(SelectivePGD):
    """Knows the detector and does nothing with it."""

    def craft(self, task: Task) -> Crafted:
        none = torch.zeros_like(task.y)
        return Crafted(task.x.clone(), none, none.clone())


class Constant(Detector):
    """Says the same of every image."""

    differentiable = True

    def fit(self, train: Features, validation: Features, adversarial: Features | None = None) -> Constant:
        return self

    def score(self, view: View) -> Tensor:
        return 0 * view.logits.double().sum(dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"nothing": torch.zeros(1)}

    def load_state_dict(self, state: dict[str, Tensor]) -> Constant:
        return self


@dataclass(frozen=True)
class Shrinking(BIM):
    """The larger its radius, the less of it is used."""

    def craft(self, task: Task) -> Crafted:
        return BIM(eps=0.02 / max(self.eps, 0.02), loss=self.loss, iterations=self.iterations).craft(task)
