"""Limited-memory quasi-Newton directions for many small problems at once."""

from __future__ import annotations

import torch
from torch import Tensor


class QuasiNewton:
    """L-BFGS (Liu and Nocedal 1989) on ||x - x0||^2 / 2 + c f(x), each row a problem of its own.

    What is remembered are steps and differences of the gradient of f alone, so that c may change from one iteration
    to the next; pairs that show a curvature below
    a tenth of the distance's own at the present c are passed over.

    Parameters
    ----------
    size : int
        Pairs remembered.
    x : Tensor
        (n, D), of the shape, type and device of the iterates.
    """

    def __init__(self, size: int, x: Tensor) -> None:
        self.steps, self.changes = x.new_zeros(0, *x.shape), x.new_zeros(0, *x.shape)
        self.size = size
        self.previous: tuple[Tensor, Tensor] | None = None
        self.scale = x.new_ones(len(x))

    def keep(self, going: Tensor) -> None:
        """Drop the other rows."""
        self.steps, self.changes, self.scale = self.steps[:, going], self.changes[:, going], self.scale[going]
        if self.previous is not None:
            self.previous = self.previous[0][going], self.previous[1][going]

    def push(self, x: Tensor, gradient: Tensor, fresh: Tensor) -> None:
        """Add the last step; rows that are `fresh` lower something else since then, and lose their pairs."""
        if self.previous is not None:
            self.steps = torch.cat([self.steps, (x - self.previous[0])[None]])[-self.size :]
            self.changes = torch.cat([self.changes, (gradient - self.previous[1])[None]])[-self.size :]
            self.steps = torch.where(fresh[:, None], 0.0, self.steps)
        self.previous = x, gradient

    def direction(self, slope: Tensor, free: Tensor, weight: Tensor) -> Tensor:
        """Minus the inverse Hessian of the Lagrangian times its slope, on the free pixels: the two-loop recursion.

        Parameters
        ----------
        slope : Tensor
            (n, D), 0 where not free.
        free : Tensor
            (n, D) bool.
        weight : Tensor
            (n, 1), the multipliers: the gradient of the Lagrangian changes by step + weight * change.
        """
        steps = self.steps * free
        changes = (self.steps + weight * self.changes) * free
        curved = (steps * changes).sum(dim=2)
        valid = curved > 0.1 * steps.square().sum(dim=2)
        inverse = torch.where(valid, 1 / torch.where(valid, curved, 1.0), 0.0)
        if len(steps):
            newest = curved[-1] / changes[-1].square().sum(dim=1).clamp(min=1e-30)
            self.scale = torch.where(valid[-1], newest, self.scale)
        vector, shares = slope, []
        for i in reversed(range(len(steps))):
            share = inverse[i] * (steps[i] * vector).sum(dim=1)
            vector = vector - share[:, None] * changes[i]
            shares.append(share)
        vector = vector * self.scale[:, None]
        for i, share in enumerate(reversed(shares)):
            back = inverse[i] * (changes[i] * vector).sum(dim=1)
            vector = vector + (share - back)[:, None] * steps[i]
        return -vector * free
