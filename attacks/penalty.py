"""Carlini and Wagner's search: a penalised distance, minimised in tanh space, with constants of each example's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attacks.base import Task, input_gradient
from attacks.task import Counts

# keeps arctanh finite where a pixel is 0 or 1
SMOOTHING = 0.999999
# the upper bound of a constant that has not succeeded yet; the x10 search stops growing above a tenth of it
UNBOUNDED = 1e10
# where no pixel of an example moved by this much, it may sit on the flat ends of tanh, its loss at a standstill
UNMOVED = 1e-4
BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Verdict:
    """What an objective says of n images, each tensor (n,).

    Attributes
    ----------
    penalty : Tensor
        >= 0 and 0 where the goal is reached, differentiable.
    lead : Tensor
        How near a failed image is to its goal: the larger, the nearer.
    hit : Tensor
        bool: the goal is reached.
    """

    penalty: Tensor
    lead: Tensor
    hit: Tensor


# takes images (n, C, H, W) and the numbers (n,) of their examples in the batch
Objective = Callable[[Tensor, Tensor], Verdict]


@dataclass(frozen=True)
class PenaltySearch:
    """Minimise ||x' - x||_2^2 + c * penalty(x') over w, where x' = (tanh(w) + 1) / 2.

    Carlini and Wagner 2017, section VI. Each example has its own constant c: x10 until its first success, then
    bisection; Adam and w start anew in every binary-search step. Every iterate is evaluated, the last included.
    Examples leave the batch where their loss no longer falls.

    Parameters
    ----------
    max_iterations : int
        Adam steps in each binary-search step.
    binary_search_steps : int
        Number of searches over c. The last of several is at the upper bound.
    lr : float
        Adam's learning rate, in tanh space.
    initial_const : float
        c of the first search.
    abort_early : bool
        End an example's search where its loss has not fallen by 0.01 % over a tenth of `max_iterations`,
        unless no pixel has moved by 1e-4 yet: saturated pixels start on the flat ends of tanh.
    """

    max_iterations: int
    binary_search_steps: int
    lr: float
    initial_const: float
    abort_early: bool

    def run(
        self, task: Task, objective: Objective, best: Nearest, start: Tensor, done: int = 0, total: int = 0
    ) -> None:
        """Search from the images `start` (N, C, H, W); distances are measured from the task's clean images.

        Parameters
        ----------
        best : Nearest
            Receives every iterate.
        done, total : int
            Steps of an example before this search and in all, for the progress; 0: this search is all.
        """
        const = task.x.new_full(task.y.shape, self.initial_const)
        lower, upper = torch.zeros_like(const), torch.full_like(const, UNBOUNDED)
        for step in range(self.binary_search_steps):
            rows = torch.arange(len(task.x), device=task.x.device)
            if 0 < step == self.binary_search_steps - 1:
                # At the upper bound. Where that bound is a former success, it has had its search, from the
                # same start and with nothing random: the same images again. The others get their last resort.
                rows = (upper == UNBOUNDED).nonzero().squeeze(1)
                const = upper
            walk = _Walk(task.x[rows], start[rows], rows, const[rows])
            won = torch.zeros_like(task.y, dtype=torch.bool)
            for iteration in self._search(walk, task, objective, best, won):
                before = done + step * self.max_iterations + iteration
                of = total or self.binary_search_steps * self.max_iterations
                task.progress(before * len(task.x), of * len(task.x), active=len(walk.rows))
            upper = torch.where(won, torch.minimum(upper, const), upper)
            lower = torch.where(won, lower, torch.maximum(lower, const))
            grown = (const * 10).clamp(max=UNBOUNDED / 10)
            const = torch.where(upper < UNBOUNDED, (lower + upper) / 2, grown)

    def _search(
        self, walk: _Walk, task: Task, objective: Objective, best: Nearest, won: Tensor
    ) -> Iterator[int]:
        """Minimise at fixed constants, yielding the number of steps taken; marks in `won` (N,) who reached the goal."""
        every = max(1, self.max_iterations // 10)
        for iteration in range(self.max_iterations + 1):
            if not len(walk.rows):
                return
            last = iteration == self.max_iterations
            evaluate = partial(_evaluate, objective, with_gradient=not last)
            x_adv, distance, lead, hit, loss, gradient = task.in_parts(
                evaluate, walk.w, walk.x, walk.const, walk.rows
            )
            won[walk.rows] |= hit
            best.offer(walk.rows, x_adv, distance, lead, hit)
            if last:
                return
            best.count(walk.rows, gradient)
            if self.abort_early and iteration % every == 0:
                gradient = walk.abort(loss, x_adv, gradient)
            walk.adam(gradient, self.lr)
            yield iteration + 1


def _evaluate(
    objective: Objective, w: Tensor, x: Tensor, const: Tensor, rows: Tensor, *, with_gradient: bool
) -> tuple[Tensor, ...]:
    """Images, squared distances, leads, hits, losses and the losses' gradients of some examples, detached."""
    w = w.detach().requires_grad_(with_gradient)
    x_adv = (torch.tanh(w) + 1) / 2
    verdict = objective(x_adv, rows)
    distance = (x_adv - x).square().flatten(1).sum(dim=1)
    loss = distance + const * verdict.penalty
    # a detector may break its gradient, and Adam would remember a NaN for good
    gradient = input_gradient(loss, w).nan_to_num(0.0, 0.0, 0.0) if with_gradient else torch.zeros_like(w)
    return tuple(t.detach() for t in (x_adv, distance, verdict.lead, verdict.hit, loss, gradient))


class _Walk:
    """Adam in tanh space for the examples still under way, all after the same number of steps."""

    def __init__(self, x: Tensor, start: Tensor, rows: Tensor, const: Tensor) -> None:
        self.x, self.start, self.rows, self.const = x, start, rows, const
        self.w = torch.atanh((2 * start - 1) * SMOOTHING)
        self.first, self.second = torch.zeros_like(x), torch.zeros_like(x)
        self.previous = torch.full_like(const, torch.inf)
        self.steps = 0

    def adam(self, gradient: Tensor, lr: float) -> None:
        """One step of Adam (Kingma and Ba 2015, algorithm 1)."""
        self.steps += 1
        self.first.mul_(BETA1).add_(gradient, alpha=1 - BETA1)
        self.second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        root = (self.second / (1 - BETA2**self.steps)).sqrt_().add_(ADAM_EPS)
        self.w = self.w.addcdiv(self.first, root, value=-lr / (1 - BETA1**self.steps))

    def abort(self, loss: Tensor, x_adv: Tensor, gradient: Tensor) -> Tensor:
        """Drop the examples that moved, but whose loss did not fall by 0.01 % since the last call.

        Called before a step, so that no iterate goes unseen; returns the gradients of the examples that go on.
        """
        unmoved = (x_adv - self.start).abs().flatten(1).amax(dim=1) < UNMOVED
        going = unmoved | (loss <= 0.9999 * self.previous)
        self.previous = loss
        if not going.all():
            for name in ("x", "start", "rows", "const", "w", "first", "second", "previous"):
                setattr(self, name, getattr(self, name)[going])
        return gradient[going]


class Nearest(Counts):
    """The nearest success of each of N examples over a whole attack, and its counts of gradients.

    For an example without any: the iterate with the largest lead.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.x_adv = task.x.clone()
        self.distance = task.x.new_full(task.y.shape, torch.inf)  # infinite: no success so far
        self.lead = torch.full_like(self.distance, -torch.inf)

    def offer(self, rows: Tensor, x_adv: Tensor, distance: Tensor, lead: Tensor, hit: Tensor) -> None:
        """Show the iterates of the examples `rows`: distances (or their squares), leads and hits, (n,) each."""
        hopeful = self.distance[rows].isinf() & (lead > self.lead[rows])
        better = torch.where(hit, distance < self.distance[rows], hopeful)
        chosen = rows[better]
        self.x_adv[chosen] = x_adv[better]
        self.lead[chosen] = lead[better]
        self.distance[rows[hit & better]] = distance[hit & better]
