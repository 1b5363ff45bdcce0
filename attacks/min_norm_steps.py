"""Steps of a walk along a boundary towards the image nearest to a clean one; each row a problem of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from attacks.quasi_newton import QuasiNewton

# pairs of steps and gradient differences that the quadratic model keeps, and rounds in which pixels that a step would
# push out of the box are put on its edge
MEMORY, EDGING = 5, 4
# L2: longest step, as a share of the estimated distance; of the first and of the last step
FIRST_STEP, LAST_STEP = 0.5, 0.005
# Linf: step of each pixel, and change of the ball's radius, as shares of the radius; of the first and of the last step
FIRST_SIGN, LAST_SIGN, FIRST_CHANGE, LAST_CHANGE = 0.7, 0.02, 0.15, 0.01
# Newton steps to the multiplier of a linear constraint in a box
NEWTON = 8


class Steps(ABC):
    """How a walk goes on; flat images (n, D) in the box, numbers (n,)."""

    @abstractmethod
    def distance(self, x: Tensor, clean: Tensor) -> Tensor:
        """(n,) distances in the norm."""

    @abstractmethod
    def take(
        self, x: Tensor, clean: Tensor, gradient: Tensor, value: Tensor, fade: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take one step.

        Parameters
        ----------
        x, clean, gradient : Tensor
            (n, D) iterates, clean images, and the gradients of `value`.
        value : Tensor
            (n,) what has to come down to 0.
        fade : Tensor
            (n,), falls from 1 to 0 over a walk.

        Returns
        -------
        x : Tensor
            (n, D) the next iterates.
        promised : Tensor
            (n,) distance of the nearest image that the model of `value` around the old ones allows.
        """

    @abstractmethod
    def turn(self, going: Tensor, fresh: Tensor, found: Tensor) -> None:
        """Drop the other rows; those that are `fresh` begin elsewhere, `found` (n,) their distance so far or inf."""


class StepsL2(Steps):
    """Sequential quadratic programming, with steps of bounded length.

    Parameters
    ----------
    x : Tensor
        (n, D), the first iterates.
    """

    def __init__(self, x: Tensor) -> None:
        self.memory = QuasiNewton(MEMORY, x)
        self.weight, self.reach = x.new_zeros(len(x)), x.new_zeros(len(x))
        self.fresh = torch.ones(len(x), dtype=torch.bool, device=x.device)

    def distance(self, x: Tensor, clean: Tensor) -> Tensor:
        """(n,) L2 distances."""
        return torch.linalg.vector_norm(x - clean, dim=1)

    def take(
        self, x: Tensor, clean: Tensor, gradient: Tensor, value: Tensor, fade: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Go towards the solution of `_solve`, so far as the fading length allows."""
        self.memory.push(x, gradient, self.fresh)
        self.fresh = torch.zeros_like(self.fresh)
        move = self._solve(x, clean, gradient, value)
        length = torch.linalg.vector_norm(move, dim=1).clamp(min=1e-12)
        self.reach = torch.where(self.reach == 0, length.clamp(min=1e-3), self.reach)
        longest = self.reach * _between(FIRST_STEP, LAST_STEP, fade)
        step = move * (longest / length).clamp(max=1)[:, None]
        return (x + step).clamp(0, 1), self.distance(x + move, clean)

    def _solve(self, x: Tensor, clean: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
        """Minimise ||x + p - clean||^2 / 2 + c p'Hp / 2 subject to value + <gradient, p> <= 0 and the box, nearly.

        H is the quasi-Newton estimate of the Hessian of `value`, c the last step's multiplier. Pixels that p would
        push out of the box are put on its edge, and the others solved for again.
        """
        weight, free = self.weight[:, None], torch.ones_like(x, dtype=torch.bool)
        move = torch.zeros_like(x)
        for _ in range(EDGING):
            back = self.memory.direction((x - clean) * free, free, weight)
            down = self.memory.direction(gradient * free, free, weight)
            rest = value + (gradient * torch.where(free, back, move)).sum(dim=1)
            self.weight = _ratio(rest, -(gradient * down).sum(dim=1)).clamp(min=0)
            move = torch.where(free, back + self.weight[:, None] * down, move)
            free = free & (x + move >= 0) & (x + move <= 1)
            move = (x + move).clamp(0, 1) - x
        return move

    def turn(self, going: Tensor, fresh: Tensor, found: Tensor) -> None:
        """Drop the other rows; of the boundary, fresh ones remember a scale alone."""
        self.memory.keep(going)
        self.fresh, self.weight = fresh, torch.where(fresh, 0, self.weight[going])
        self.reach = torch.where(fresh & found.isfinite(), found, self.reach[going])


class StepsLinf(Steps):
    """Signed gradient steps in a ball whose radius follows the linear model of `value`.

    Parameters
    ----------
    x : Tensor
        (n, D), the first iterates.
    """

    def __init__(self, x: Tensor) -> None:
        self.radius = x.new_zeros(len(x))

    def distance(self, x: Tensor, clean: Tensor) -> Tensor:
        """(n,) Linf distances."""
        return torch.linalg.vector_norm(x - clean, ord=torch.inf, dim=1)

    def take(
        self, x: Tensor, clean: Tensor, gradient: Tensor, value: Tensor, fade: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Set the ball to the radius of `smallest_linf`, so far as the fading change allows, then step inside of it."""
        promised = smallest_linf(x, clean, gradient, value)
        share = _between(FIRST_CHANGE, LAST_CHANGE, fade)
        near = promised.maximum(self.radius * (1 - share)).minimum(self.radius * (1 + share))
        self.radius = torch.where(self.radius == 0, promised.clamp(1e-4, 1), near)
        size = self.radius * _between(FIRST_SIGN, LAST_SIGN, fade)
        change, most = x - size[:, None] * gradient.sign() - clean, self.radius[:, None]
        return (clean + change.maximum(-most).minimum(most)).clamp(0, 1), promised

    def turn(self, going: Tensor, fresh: Tensor, found: Tensor) -> None:
        """Drop the other rows; fresh ones begin with the ball of the nearest success."""
        self.radius = torch.where(fresh & found.isfinite(), found, self.radius[going])


def smallest_linf(x: Tensor, clean: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
    """The smallest c >= 0 for which some q in the box, |q - clean| <= c, has value + <gradient, q - x> <= 0.

    The best q is clip(clean - c sign(gradient), 0, 1). The left side falls with c, convex and piecewise linear:
    Newton's method from c = 0 never passes the root, and is there once the pixels at the edge are those of the root;
    where that takes more than `NEWTON` steps, c is a little too small. Where the box has no such q, all pixels are at
    the edge.

    Parameters
    ----------
    x, clean, gradient : Tensor
        (n, D).
    value : Tensor
        (n,).

    Returns
    -------
    Tensor
        (n,), at most 1.
    """
    direction, radius = gradient.sign(), torch.zeros_like(value)
    for _ in range(NEWTON):
        goal = clean - radius[:, None] * direction
        inside = ((goal > 0) | (direction < 0)) & ((goal < 1) | (direction > 0))
        excess = value + (gradient * (goal.clamp(0, 1) - x)).sum(dim=1)
        further = _ratio(excess, (gradient.abs() * inside).sum(dim=1), 1.0)
        radius = radius + torch.where(excess > 0, further, 0)
    return radius.clamp(max=1)


def _between(first: float, last: float, fade: Tensor) -> Tensor:
    """(n,), falls from `first` to `last` as `fade` falls from 1 to 0."""
    return last + (first - last) * fade


def _ratio(above: Tensor, below: Tensor, otherwise: float = 0.0) -> Tensor:
    """(n,) quotients, and a number where the divisor is not positive."""
    usable = below > torch.finfo(below.dtype).tiny
    return torch.where(usable, above / torch.where(usable, below, 1), otherwise)
