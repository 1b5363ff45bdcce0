"""Jacobian-based saliency map attack: a few pixels, each pushed as far as it goes."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial

import torch
from torch import Tensor

from attacks.base import Attack, Crafted, Task, input_gradient
from attacks.checks import check_count, check_number
from attacks.objectives import reached_by
from attacks.saliency import best_pair, best_pixel
from attacks.task import all_zero


@dataclass(frozen=True)
class JSMA(Attack):
    """Change the pixels with the largest saliency by theta, until the goal is reached (Papernot et al. 2016).

    With o the readout logits, t the target, alpha = d o_t / d x and beta = d sum_{j != t} o_j / d x, a step
    takes the pixel, or the pair (gradients added), with alpha * |beta| largest among those with alpha > 0
    and beta < 0; for a negative theta the signs turn round. Untargeted: alpha and beta change places, with t
    the label y. A pixel here is one channel value. Each is changed once; those that are saturated in theta's
    direction are left out. An example ends at its goal, after `max_steps`, or where no pixel qualifies; the
    last iterate is returned.

    Parameters
    ----------
    theta : float
        Change of a pixel, in units of the pixel range, in [-1, 1] and not 0; then clipped to the box.
    max_steps : int
        Steps at most, so at most `max_steps` * `pixels_per_step` changed pixels.
    pixels_per_step : int
        1 (as the paper's appendix prints it) or 2 (as its lineage).
    targeted : bool
        True: towards a target class, by default a random other one. False: away from the label.
    """

    # no `length`: more steps are more pixels, another attack
    theta: float = 1.0
    max_steps: int = 100
    pixels_per_step: int = 2
    _: KW_ONLY
    targeted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.theta, "theta", low=-1.0)
        if self.theta == 0 or self.theta > 1:
            raise ValueError(f"theta must lie in [-1, 1] and not be 0, not {self.theta!r}")
        check_count(self.max_steps, "max_steps")
        if self.pixels_per_step not in (1, 2):
            raise ValueError(f"pixels_per_step must be 1 or 2, not {self.pixels_per_step!r}")

    def max_passes(self, classes: int) -> int:
        """Two gradients a step."""
        return 2 * self.max_steps

    def craft(self, task: Task) -> Crafted:
        """All examples at once, two gradients a step; finished examples leave the batch."""
        shape = task.x.shape[1:]
        flat = task.x.flatten(1).clone()
        # each pixel once, and only where theta can move it
        allowed = flat < 1 if self.theta > 0 else flat > 0
        choose = best_pair if self.pixels_per_step == 2 else best_pixel
        passes, zeros = torch.zeros_like(task.y), torch.zeros_like(task.y)
        rows = torch.arange(len(flat), device=flat.device)
        look = partial(self._look, task)
        for step in range(self.max_steps):
            won, gain, drop = task.in_parts(look, flat[rows].unflatten(1, shape), rows)
            rows, gain, drop = rows[~won], gain[~won], drop[~won]
            if not len(rows):
                break
            passes[rows] += 2
            zeros[rows] += all_zero(gain).long() + all_zero(drop).long()
            pixels, found = choose(gain, drop, allowed[rows])
            rows, pixels = rows[found], pixels[found]
            flat[rows[:, None], pixels] = (flat[rows[:, None], pixels] + self.theta).clamp(0, 1)
            allowed[rows[:, None], pixels] = False
            task.progress((step + 1) * len(flat), self.max_steps * len(flat), active=len(rows))
            if not len(rows):
                break
        return Crafted(flat.unflatten(1, shape), passes, zeros)

    def _look(self, task: Task, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n,) who is at the goal; (n, D) what theta on a pixel adds to what is wanted, and takes from the rest."""
        x = x.clone().requires_grad_()
        logits, y, target = task.logits(x), task.y[rows], task.targets(rows)
        won = reached_by(task.slack, logits, y, target)
        if won.all():
            return won, x.detach().flatten(1), x.detach().flatten(1)
        own = logits.gather(1, (y if target is None else target)[:, None]).squeeze(1)
        alpha = input_gradient(own, x, keep=True).flatten(1)
        beta = input_gradient(logits.sum(dim=1) - own, x).flatten(1)
        sign = 1 if self.theta > 0 else -1
        gain, drop = (sign * alpha, -sign * beta) if target is not None else (sign * beta, -sign * alpha)
        return won, gain, drop
