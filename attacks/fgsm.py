"""Fast gradient sign method: one step of size eps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from attacks.base import Attack, Crafted, Task, loss_gradient
from attacks.checks import check_choice, check_number
from attacks.objectives import LOSSES
from attacks.task import all_zero


@dataclass(frozen=True)
class FGSM(Attack):
    """x' = clip(x + eps * sign(grad_x L(x, y)), 0, 1) (Goodfellow, Shlens and Szegedy 2015).

    Targeted: one step down the loss of the target class.

    Parameters
    ----------
    eps : float
        Radius of the L-infinity ball, in units of the pixel range; 0 is allowed.
    loss : str
        ``ce`` (as published), ``margin`` or ``dlr``, which do not saturate; see `objectives.ascent`.
    """

    single_step: ClassVar[bool] = True

    eps: float = 0.1
    loss: str = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.eps, "eps")
        check_choice(self.loss, LOSSES, "loss")

    def max_passes(self, classes: int) -> int:
        """One gradient."""
        return 1

    def craft(self, task: Task) -> Crafted:
        """One gradient a batch."""
        gradient = loss_gradient(self.loss, task, task.x)
        x_adv = (task.x + self.eps * gradient.sign()).clamp(0, 1)
        task.progress(len(x_adv), len(x_adv))
        return Crafted(x_adv, torch.ones_like(task.y), all_zero(gradient).long())
