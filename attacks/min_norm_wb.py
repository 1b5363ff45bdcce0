"""Minimum-norm attack on classifier and detector together: the nearest image that is misclassified and unflagged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.base import Crafted, Task, finite_gradient
from attacks.checks import check_count, check_number
from attacks.joint import JointAttack
from attacks.objectives import margin, reached
from attacks.quasi_newton import QuasiNewton
from attacks.task import all_zero
from attacks.watched import Look, Watched

# how far inside both limits a success lies, in units of the clean lead and of the scores: beyond rounding
SLACK = 1e-3
# growth of log(multiplier) an iteration: until the first success, and at most after it
GROW, ADJUST, NEAR = 0.4, 0.15, 0.03
# longest step, as a share of the estimated distance: of the first and of the last iteration
FIRST_STEP, LAST_STEP = 0.4, 0.004
# every so many iterations, and in the last ones, a step straight onto the limit
LANDING, LAST_LANDINGS = 8, 4
# a search that has been outside for so many iterations since its nearest success goes back to it, with half the reach
PATIENCE = 12
# shares of the iterations after which the classes of an example are thinned out to so many
ROUNDS = ((0.1, 3), (0.4, 1))

PER_SEARCH = (
    *("row", "number", "goal", "clean", "x", "unit", "limit", "reference", "aimed", "start", "pulled"),
    *("fresh", "blind", "outside", "reach", "weight", "lead", "excess", "short", "value"),
)


@dataclass(frozen=True, kw_only=True)
class MinNormWhiteBox(JointAttack):
    """Minimise ||x' - x||_2 subject to v(x') <= 0 and x' in the box, with few gradients.

    v is the larger of two excesses: of the best other logit over the logit of the wrong class t, and of the score
    as t over its limit. The Lagrangian ||x' - x||^2 / 2 + c v(x') is minimised by a limited-memory quasi-Newton
    method (Liu and Nocedal 1989) with steps of bounded length, pixels at the box held where the gradient pushes
    outward; meanwhile c rises where v > 0 and falls where v <= 0, so that the iterates follow the surface v = 0 to
    its nearest point. The detector's score has a minimum of its own at every stray training point between the
    classes. So each search starts by pulling the embedding to the nearest typical one of class t, with c rising,
    and turns to v close to its limit.

    Untargeted, the likeliest wrong classes are searched side by side; those with the larger Lagrangian leave after
    a tenth (all but three) and two fifths (all but one) of the iterations. The result is the nearest success. A
    failed example comes back as the iterate with the least sum of both excesses.

    Parameters
    ----------
    clean_quantile : float or None
        None: a success is not flagged, its score at most the target's threshold. A number in [0, 1]: its score is
        at most this quantile of the clean scores of the predicted class; 0.5 asks for a density above the median.
    iterations : int
        Gradients of the longest search; with nine classes 2.4 times as many in all.
    classes : int
        Wrong classes searched at first, in the order of the clean logits.
    memory : int
        Pairs of steps and gradient differences that the quasi-Newton method keeps.
    """

    length: ClassVar[tuple[str, ...]] = ("iterations",)

    clean_quantile: float | None = None
    iterations: int = 120
    classes: int = 9
    memory: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clean_quantile is not None:
            check_number(self.clean_quantile, "clean_quantile")
            if self.clean_quantile > 1:
                raise ValueError(f"clean_quantile must lie in [0, 1], not {self.clean_quantile!r}")
        for name in ("iterations", "classes", "memory"):
            check_count(getattr(self, name), name)

    def hit(self, look: Look, watched: Watched, y: Tensor, target: Tensor | None) -> Tensor:
        """(n,) bool: misclassified (or taken for the target), and the score within the limit."""
        limit = self._limits(watched, look.logits)[look.logits.argmax(dim=1)]
        return reached(look.logits, y, target) & (look.scores <= limit)

    def _limits(self, watched: Watched, logits: Tensor) -> Tensor:
        """(K,) float64, the highest score allowed under each class."""
        if self.clean_quantile is None:
            return logits.new_full(logits.shape[1:], watched.threshold, dtype=torch.float64)
        return watched.limits(self.clean_quantile).to(logits.device)

    def max_passes(self, classes: int) -> int:
        """Gradients an example at most, for a classifier with so many classes."""
        lanes = 1 if self.targeted else min(self.classes, classes - 1)
        return sum(min(lanes, self._kept(i - 1)) for i in range(self.iterations))

    def _kept(self, iteration: int) -> int:
        """How many classes of an example are still searched after this iteration."""
        return min(
            [self.classes] + [count for share, count in ROUNDS if iteration >= share * self.iterations]
        )

    def craft(self, task: Task) -> Crafted:
        """All searches of all examples as one batch; those given up leave it."""
        watched = self.watched(task)
        lanes = _Lanes(task, watched, self._goals(task), self._limits(watched, task.clean_logits))
        memory = QuasiNewton(self.memory, lanes.x)
        for iteration in range(self.iterations + 1):
            gradient = lanes.visit(watched, with_gradient=iteration < self.iterations)
            if iteration == self.iterations:
                break
            keep = lanes.promising(self._kept(iteration))
            active = len(lanes.row[keep].unique())
            task.progress((iteration + 1) * len(task.x), self.iterations * len(task.x), active=active)
            if not active:
                break
            if not keep.all():
                gradient = gradient[keep]
                lanes.keep(keep)
                memory.keep(keep)
            fade = 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))
            landing = iteration % LANDING == LANDING - 1 or iteration >= self.iterations - LAST_LANDINGS
            lanes.step(gradient, memory, fade, landing)
        return lanes.crafted(task)

    def _goals(self, task: Task) -> Tensor:
        """(N, L) int64, the classes to search for each example."""
        if task.target is not None:
            return task.target[:, None]
        others = task.clean_logits.scatter(1, task.y[:, None], -torch.inf)
        count = min(self.classes, others.shape[1] - 1)
        return others.argsort(dim=1, descending=True, stable=True)[:, :count]


class _Lanes:
    """The searches under way, one for each example and class; records of all of them, by number."""

    def __init__(self, task: Task, watched: Watched, goals: Tensor, limits: Tensor) -> None:
        count, width = goals.shape
        self.task, self.width = task, width
        self.row = torch.arange(count, device=goals.device).repeat_interleave(width)
        self.number = torch.arange(count * width, device=goals.device)
        self.goal = goals.flatten()
        self.clean = task.x.flatten(1)[self.row]
        self.x = self.clean.clone()
        lead = margin(task.clean_logits[self.row], self.goal, self.goal).double()
        self.unit = lead.abs().clamp(min=1e-6)  # so that the clean lead to catch up with is 1
        self.limit = limits[self.goal]
        self._aim(watched)
        self.fresh = torch.ones_like(self.pulled)
        self.blind = torch.zeros_like(self.pulled)
        self.outside = torch.zeros_like(self.row)
        self.reach, self.weight = torch.ones_like(lead), torch.zeros_like(lead)
        self.distance = torch.full_like(lead, torch.inf)  # infinite: no success so far
        self.least = torch.full_like(lead, torch.inf)
        self.best = self.clean.clone()
        self.passes, self.zeros = torch.zeros_like(task.y), torch.zeros_like(task.y)

    def _aim(self, watched: Watched) -> None:
        """Find for each search the nearest typical embedding of its class; a class may have none."""
        with torch.no_grad():
            z = watched.look(self.task.x).embeddings[self.row]
        self.reference = z.clone()
        for label in self.goal.unique().tolist():
            rows = (self.goal == label).nonzero().squeeze(1)
            pool = watched.references[watched.reference_labels == label].to(z)
            if len(pool):
                nearest = [(pool - point).square().sum(dim=1).argmin() for point in z[rows]]
                self.reference[rows] = pool[torch.stack(nearest)]
        start = (z - self.reference).square().sum(dim=1).double()
        self.aimed = start > 0
        self.start = torch.where(self.aimed, start, 1.0)
        self.pulled = self.aimed.clone()

    def visit(self, watched: Watched, *, with_gradient: bool) -> Tensor:
        """Look at the iterates, keep the best; returns the gradients (n, D) of what each search lowers."""
        x = self.x.reshape(-1, *self.task.x.shape[1:]).requires_grad_(with_gradient)
        look = watched.look(x, self.goal)
        lead = -margin(look.logits, self.goal, self.goal).double() / self.unit
        # exactly at its limit, which rounding does not tell of, a score is constant or cut off there: no alarm to calm
        over = torch.where(look.scores == self.limit, -torch.inf, (look.scores - self.limit) / watched.scale)
        excess = torch.maximum(lead, over) + SLACK
        pull = (look.embeddings - self.reference).square().sum(dim=1).double() / self.start
        plain = torch.where(self.pulled, pull, lead + SLACK)
        value = torch.where(self.pulled | self.blind, plain, excess)
        self.lead, self.excess, self.value = lead.detach(), excess.detach(), value.detach()
        self.short = self.lead.relu() + over.detach().relu()
        self._record()
        if not with_gradient:
            return torch.zeros_like(self.x)
        gradient = finite_gradient(value, x, fallback=plain).flatten(1)
        self.passes.index_add_(0, self.row, torch.ones_like(self.row))
        self.zeros.index_add_(0, self.row, all_zero(gradient).long())
        return gradient

    def _record(self) -> None:
        """Keep the nearest success; before the first one, the least sum of the two excesses."""
        distance = torch.linalg.vector_norm(self.x - self.clean, dim=1).double()
        won, before = self.excess <= 0, self.distance[self.number]
        better = torch.where(won, distance < before, before.isinf() & (self.short < self.least[self.number]))
        chosen = self.number[better]
        self.best[chosen] = self.x[better]
        self.least[chosen] = self.short[better]
        self.distance[chosen] = torch.where(won, distance, torch.inf)[better]

    def promising(self, count: int) -> Tensor:
        """(n,) bool: the `count` searches of each example with the smallest Lagrangian, none where x itself won."""
        moved = (self.x - self.clean).double().square().sum(dim=1) / 2
        found = self.distance[self.number]
        merit = torch.where(found.isinf(), moved + self.weight * self.value.clamp(min=0), found.square() / 2)
        table = self.distance.new_full((len(self.distance),), torch.inf)
        table[self.number] = merit
        rank = table.reshape(-1, self.width).argsort(dim=1, stable=True).argsort(dim=1).flatten()
        done = (self.distance.reshape(-1, self.width) == 0).any(dim=1)
        return (rank[self.number] < count) & ~done[self.row]

    def keep(self, going: Tensor) -> None:
        """Drop the other searches; their records stay."""
        for name in PER_SEARCH:
            setattr(self, name, getattr(self, name)[going])

    def step(self, gradient: Tensor, memory: QuasiNewton, fade: float, landing: bool) -> None:
        """Choose the multipliers and move on."""
        self._weigh(gradient, fade)
        memory.push(self.x, gradient, self.fresh)
        self._turn(gradient)
        x, weight = self.x, self.weight[:, None].to(gradient)
        slope = (x - self.clean) + weight * gradient
        free = ~(((x <= 0) & (slope > 0)) | ((x >= 1) & (slope < 0)))
        move = memory.direction(slope * free, free, weight)
        if landing:
            newton = -gradient * (self.excess / _square(gradient))[:, None].to(gradient)
            near = ~self.pulled & ~self.fresh & (self.excess > 0) & (self.excess < 1)
            move = torch.where(near[:, None], newton, move)
        longest = self.reach * (LAST_STEP + (FIRST_STEP - LAST_STEP) * fade)
        length = _square(move).sqrt()
        self.x = (x + move * (longest / length).clamp(max=1)[:, None].to(move)).clamp(0, 1)
        self._return()

    def _weigh(self, gradient: Tensor, fade: float) -> None:
        """Raise the multiplier where v > 0, lower it elsewhere; a search that begins or turned estimates it."""
        begins = self.weight == 0
        # where the value has fallen to 0, linearly or, when pulled, as a square
        estimate = self.value.abs() * torch.where(self.pulled, 2.0, 1.0) / _square(gradient).sqrt()
        self.reach = torch.where(begins, estimate.clamp(1e-3, math.sqrt(gradient.shape[1])), self.reach)
        first = self.reach.square() / (8 * self.value.abs().clamp(min=1e-12))
        change = (self.x - self.clean).double()
        # least squares of x' - x + c grad v = 0
        balance = -(change * gradient).sum(dim=1) / _square(gradient)
        lost = self.distance[self.number].isinf()
        rate = torch.where(self.pulled & lost, GROW, ADJUST * (self.excess / NEAR).clamp(-1, 1))
        even = torch.where(
            self.excess > 0, _square(change) / (4 * self.value.abs().clamp(min=0.1)), 0.1 * self.weight
        )
        onward = torch.where(self.fresh, balance.maximum(even), self.weight * rate.exp())
        self.weight = torch.where(begins, first, onward)

    def _turn(self, gradient: Tensor) -> None:
        """Turn from the pull to v close to the limit; and away from what has no gradient."""
        dead = all_zero(gradient)
        blinded = dead & ~self.pulled & ~self.blind
        self.blind |= blinded
        close = self.pulled & ~self.blind & (self.lead < 0) & (self.excess <= 1)
        turned = torch.where(self.pulled, ~(close | dead), dead & self.aimed)
        self.fresh = blinded | (turned != self.pulled)
        self.pulled = turned

    def _return(self) -> None:
        """Send a search that strayed from its successes back to the nearest of them."""
        self.outside = torch.where(self.excess > 0, self.outside + 1, 0)
        stray = (self.outside >= PATIENCE) & self.distance[self.number].isfinite()
        self.x = torch.where(stray[:, None], self.best[self.number], self.x)
        self.reach = torch.where(stray, self.reach / 2, self.reach)
        self.outside = torch.where(stray, 0, self.outside)
        self.fresh |= stray

    def crafted(self, task: Task) -> Crafted:
        """The nearest success of each example or, without any, its best attempt."""
        distance, least = self.distance.reshape(-1, self.width), self.least.reshape(-1, self.width)
        lost = distance.isinf().all(dim=1, keepdim=True)
        slot = torch.where(lost, least, distance).argmin(dim=1)
        number = torch.arange(len(slot), device=slot.device) * self.width + slot
        return Crafted(self.best[number].reshape(task.x.shape), self.passes, self.zeros)


def _square(rows: Tensor) -> Tensor:
    """(n,) float64 squared norms, never quite 0."""
    return rows.double().square().sum(dim=1).clamp(min=1e-30)
