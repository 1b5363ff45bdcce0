"""Basic iterative method: small gradient-sign steps, projected after each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from attacks.base import Attack, Crafted, Task, loss_gradient
from attacks.checks import check_choice, check_count, check_number
from attacks.geometry import Ball
from attacks.objectives import LOSSES
from attacks.task import all_zero


@dataclass(frozen=True)
class BIM(Attack):
    """x_{k+1} = clip(P(x_k + step * sign(grad_x L(x_k, y))), 0, 1) (Kurakin, Goodfellow and Bengio 2017).

    P projects onto the L-infinity ball of radius eps around x. With a random start it is PGD (Madry et al.
    2018).

    Parameters
    ----------
    eps : float
        Radius of the L-infinity ball, in units of the pixel range; 0 is allowed.
    loss : str
        ``ce`` (as published), ``margin`` or ``dlr``, which do not saturate; see `objectives.ascent`.
    iterations : int
        Number of steps; all are taken, also past the first success.
    step : float or None
        Size of a step; None: eps / iterations.
    random_start : bool
        Start uniformly inside the ball instead of at x.
    """

    length: ClassVar[tuple[str, ...]] = ("iterations",)

    eps: float = 0.1
    loss: str = "ce"
    iterations: int = 10
    step: float | None = None
    random_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.eps, "eps")
        check_choice(self.loss, LOSSES, "loss")
        check_count(self.iterations, "iterations")
        if self.step is not None:
            check_number(self.step, "step", strict=True)

    def max_passes(self, classes: int) -> int:
        """One gradient a step."""
        return self.iterations

    def craft(self, task: Task) -> Crafted:
        """`iterations` gradients a batch; the last iterate is returned."""
        step = self.eps / self.iterations if self.step is None else self.step
        ball = Ball("linf", self.eps)
        x_adv = ball.start(task.x, task.seed, task.index, "start") if self.random_start else task.x.clone()
        zeros = torch.zeros_like(task.y)
        for iteration in range(self.iterations):
            gradient = loss_gradient(self.loss, task, x_adv)
            x_adv = ball.ascend(gradient, x_adv, task.x, step)
            zeros += all_zero(gradient)
            task.progress((iteration + 1) * len(task.x), self.iterations * len(task.x), active=len(task.x))
        return Crafted(x_adv, torch.full_like(task.y, self.iterations), zeros)
