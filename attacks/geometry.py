"""Balls around images: projections, random starts, steepest steps, and steps that leave something else unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.checks import check_choice, check_number
from attacks.randomness import uniform

NORMS = ("linf", "l2")


@dataclass(frozen=True)
class Ball:
    """All images in [0, 1] within a distance of a clean image.

    Parameters
    ----------
    norm : str
        ``linf`` or ``l2``.
    eps : float
        Radius, in units of the pixel range; 0 is allowed.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        check_choice(self.norm, NORMS, "norm")
        check_number(self.eps, "eps")

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The point of the ball *and* the box nearest to `x_adv` in the L2 norm; both (n, ...), `x` in [0, 1]."""
        if self.norm == "linf":
            return (x + (x_adv - x).clamp(-self.eps, self.eps)).clamp(0, 1)
        return _project_l2(x_adv, x, self.eps)

    def start(self, x: Tensor, seed: int, index: Tensor, purpose: str) -> Tensor:
        """Random images of the ball, row i from (seed, index[i], purpose) alone.

        ``linf``: uniform in the ball, then clipped to the box. ``l2``: uniform direction, length uniform in
        [0, eps], then projected.
        """
        noise = 2 * uniform(x, seed, index, purpose) - 1
        if self.norm == "linf":
            return self.project(x + self.eps * noise, x)
        noise = torch.erfinv(noise.clamp(-0.999999, 0.999999))  # normal: no direction is preferred
        length = uniform(x.flatten(1)[:, :1], seed, index, f"{purpose} length")
        return self.project(x + self.eps * _rows(length.squeeze(1), x) * _unit(noise), x)

    def ascend(self, gradient: Tensor, x_adv: Tensor, x: Tensor, step: float) -> Tensor:
        """Move `x_adv` by the steepest step of size `step` and project it back.

        The step is step * sign(g) or step * g / ||g||_2, g without the coordinates that would only leave the box.
        """
        if self.norm == "linf":
            return self.project(x_adv + step * gradient.sign(), x)
        return self.project(x_adv + step * _unit(gradient * _free(gradient, x_adv)), x)

    def ascend_beside(
        self, gradient: Tensor, other: Tensor, x_adv: Tensor, x: Tensor, step: float, *, always: bool = False
    ) -> Tensor:
        """Move `x_adv` by the steepest step of size `step` that does not descend along the gradient `other`.

        Where the steepest step of all has <other, d> < 0, the best one orthogonal to `other` takes its place; where
        `always`, it does so for every example. ``linf``: the step stays inside ball and box by itself, so that it
        is orthogonal also at their edges. ``l2``: pixels that would leave the box stand still, and the result is
        projected onto the ball.

        Parameters
        ----------
        gradient, other : Tensor
            What to climb, and what not to descend, (n, ...).
        x_adv, x : Tensor
            Iterates and clean images, (n, ...).
        step : float
            Size of the step in the norm.
        always : bool
            Orthogonal whether the steepest step harms or not.
        """
        if self.norm == "linf":
            low = ((x - self.eps).clamp(min=0) - x_adv).clamp(-step, 0)
            high = ((x + self.eps).clamp(max=1) - x_adv).clamp(0, step)
            steepest = torch.where(gradient > 0, high, torch.where(gradient < 0, low, 0.0))
            other = _where_harmed(other, steepest, always)
            return self.project(x_adv + orthogonal_linf(gradient, other, low, high), x)
        free = _free(gradient, x_adv)
        other = _where_harmed(other, gradient * free, always)
        free = torch.ones_like(free)
        for _ in range(FREEING):
            free = free * _free(orthogonal_l2(gradient * free, other * free), x_adv)
        return self.project(x_adv + step * orthogonal_l2(gradient * free, other * free), x)


# rounds in which pixels that a step would push out of the box are held still; more change little
FREEING = 3


def orthogonal_l2(gradient: Tensor, other: Tensor) -> Tensor:
    """The unit vector d with <other, d> = 0 that has the largest <gradient, d>.

    d = (g - <g, h> / <h, h> h), normalised. Zero where g is a multiple of h; g / ||g|| where h = 0.

    Parameters
    ----------
    gradient, other : Tensor
        g and h, (n, ...).
    """
    g, h = _unit(gradient.double()).flatten(1), _unit(other.double()).flatten(1)
    d = g
    for _ in range(2):  # once more: the first difference loses digits where g is nearly parallel to h
        d = d - (d * h).sum(dim=1, keepdim=True) * h
    # what is left of a parallel g is rounding, and no direction
    d = torch.where(torch.linalg.vector_norm(d, dim=1, keepdim=True) > 1e-6, d, 0)
    return _unit(d).view_as(gradient).to(gradient)


def orthogonal_linf(gradient: Tensor, other: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The step d with low <= d <= high and <other, d> = 0 that has the largest <gradient, d>, exactly.

    A linear programme in a box with one equation (the continuous knapsack, Dantzig 1957). With a multiplier m,
    d_i is `high` where g_i > m h_i and `low` where g_i < m h_i; as m rises past each ratio g_i / h_i in turn,
    <h, d> falls from its largest value to its smallest. The coordinate at which it passes 0 lies in between.

    Parameters
    ----------
    gradient, other : Tensor
        g and h, (n, ...).
    low, high : Tensor
        Bounds of the same shape, low <= 0 <= high.

    Returns
    -------
    Tensor
        d, shaped as the gradient; 0 in the coordinates where both gradients are 0.
    """
    g, h, low_, high_ = (t.double().flatten(1) for t in (gradient, other, low, high))
    h = h / h.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(h.dtype).tiny)
    ratio = torch.where(h == 0, torch.inf, g / h)
    order = ratio.argsort(dim=1, stable=True)
    # for m = -inf: <h, d> at its largest, every coordinate where it makes <h, d> rise
    before, after = torch.where(h > 0, high_, low_), torch.where(h > 0, low_, high_)
    drops = (h * (before - after)).gather(1, order).cumsum(dim=1)
    passed = (drops < (h * before).sum(dim=1, keepdim=True)).sum(dim=1, keepdim=True)
    place = torch.empty_like(order).scatter_(
        1, order, torch.arange(g.shape[1], device=g.device).expand_as(order)
    )
    d = torch.where(place < passed, after, before)
    idle = torch.where(g > 0, high_, torch.where(g < 0, low_, 0.0))
    d = torch.where(h == 0, idle, d)
    between = order.gather(1, passed.clamp(max=g.shape[1] - 1))
    slope = h.gather(1, between)
    rest = (h * d).sum(dim=1, keepdim=True) - slope * d.gather(1, between)
    exact = torch.where(slope == 0, d.gather(1, between), -rest / slope)
    bounds = low_.gather(1, between), high_.gather(1, between)
    d = d.scatter(1, between, exact.clamp(*bounds))
    return d.view_as(gradient).to(gradient)


def _project_l2(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """Project onto the L2 ball and the box at once.

    The nearest point is clip(x + s (x_adv - x), 0, 1) with the largest s <= 1 whose distance to x is at most eps: what
    the box cuts off is spent on the other pixels. With pixels sorted by the s at which they meet the box, the squared
    distance is A_k + s^2 B_k between two of these, A_k the cut-off part and B_k the rest.
    """
    start, change = x.double().flatten(1), (x_adv - x).double().flatten(1)
    room = torch.where(change > 0, 1 - start, start)
    meets = torch.where(change == 0, torch.inf, room / change.abs())
    meets, order = meets.sort(dim=1)
    squares = change.square().gather(1, order)
    cut = room.square().gather(1, order).cumsum(dim=1)
    rest = squares.sum(dim=1, keepdim=True) - squares.cumsum(dim=1)
    reach = torch.where(meets.isinf(), torch.inf, cut + meets.square() * rest.clamp(min=0))
    count = (reach <= eps**2).sum(dim=1, keepdim=True)
    before = (count - 1).clamp(min=0)
    spent = torch.where(count > 0, cut.gather(1, before), 0.0)
    left = torch.where(count > 0, rest.gather(1, before), squares.sum(dim=1, keepdim=True))
    scale = ((eps**2 - spent).clamp(min=0) / left.clamp(min=torch.finfo(left.dtype).tiny)).sqrt()
    return (start + scale.clamp(max=1) * change).clamp(0, 1).view_as(x).to(x)


def _where_harmed(other: Tensor, step: Tensor, always: bool) -> Tensor:
    """`other` in the rows (n, ...) where the step descends along it, or in all; zeros elsewhere."""
    harmed = (step.double() * other.double()).flatten(1).sum(dim=1) < 0
    return other if always else other * _rows(harmed.to(other), other)


def _free(direction: Tensor, x_adv: Tensor) -> Tensor:
    """1 where a pixel can move along the direction, 0 where that only leaves the box."""
    stuck = ((x_adv <= 0) & (direction < 0)) | ((x_adv >= 1) & (direction > 0))
    return (~stuck).to(direction)


def _unit(vectors: Tensor) -> Tensor:
    """Rows (n, ...) scaled to an L2 norm of 1, whatever their scale; a row of zeros stays."""
    largest = vectors.abs().flatten(1).amax(dim=1)
    scaled = vectors / _rows(torch.where(largest > 0, largest, 1.0), vectors)
    length = torch.linalg.vector_norm(scaled.flatten(1), dim=1)
    return scaled / _rows(torch.where(length > 0, length, 1.0), vectors)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """(n,) values, shaped to multiply rows of `like` (n, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))
