"""Carlini and Wagner's L2 attack, with every example's search its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.base import Attack, Crafted, Task, all_zero, input_gradient
from attacks.checks import check_count, check_number
from attacks.objectives import margin, reached

# keeps arctanh finite where a pixel is 0 or 1
SMOOTHING = 0.999999
# the upper bound of a constant that has not succeeded yet; the x10 search stops growing above a tenth of it
UNBOUNDED = 1e10
# where no pixel of an example moved by this much, it may sit on the flat ends of tanh, its loss at a standstill
UNMOVED = 1e-4
BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Minimise ||x' - x||_2^2 + c * max(0, confidence - margin(x')) over w, where x' = (tanh(w) + 1) / 2.

    Carlini and Wagner 2017, section VI-A. Each example has its own constant c: x10 until its first success,
    then bisection; Adam and w start anew in every binary-search step. Every iterate is evaluated, the last
    included. The result is the nearest iterate whose margin reaches the confidence; for an example without
    any, the iterate with the largest margin, and `success` false, also where that one is misclassified.

    Parameters
    ----------
    confidence : float
        Logit margin that a success has to reach, >= 0.
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

    norm: ClassVar[str] = "l2"

    confidence: float = 0.0
    max_iterations: int = 1000
    binary_search_steps: int = 9
    lr: float = 5e-3
    initial_const: float = 1e-2
    abort_early: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.confidence, "confidence")
        check_count(self.max_iterations, "max_iterations")
        check_count(self.binary_search_steps, "binary_search_steps")
        check_number(self.lr, "lr", strict=True)
        check_number(self.initial_const, "initial_const", strict=True)

    def reached(self, logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """(n,) bool: the prediction is as asked, and by a margin of at least the confidence."""
        return reached(logits, y, target) & (margin(logits, y, target) >= self.confidence)

    def craft(self, task: Task) -> Crafted:
        """The binary search over the constants; finished examples leave the batch."""
        best = _Best(task)
        const = task.clean_logits.new_full(task.y.shape, self.initial_const)
        lower, upper = torch.zeros_like(const), torch.full_like(const, UNBOUNDED)
        for step in range(self.binary_search_steps):
            rows = torch.arange(len(task.x), device=task.x.device)
            if 0 < step == self.binary_search_steps - 1:
                # At the upper bound. Where that bound is a former success, it has had its search, from the
                # same start and with nothing random: the same images again. The others get their last resort.
                rows = (upper == UNBOUNDED).nonzero().squeeze(1)
                const = upper
            won = torch.zeros_like(task.y, dtype=torch.bool)
            won[rows] = self._search(task, step, rows, const[rows], best)
            upper = torch.where(won, torch.minimum(upper, const), upper)
            lower = torch.where(won, lower, torch.maximum(lower, const))
            grown = (const * 10).clamp(max=UNBOUNDED / 10)
            const = torch.where(upper < UNBOUNDED, (lower + upper) / 2, grown)
        return Crafted(best.x_adv, best.passes, best.zero_gradients)

    def _search(self, task: Task, step: int, rows: Tensor, const: Tensor, best: _Best) -> Tensor:
        """Minimise at fixed constants; returns (len(rows),) bool: an iterate reached the confidence."""
        won = torch.zeros_like(task.y, dtype=torch.bool)
        walk = _Walk(task.x[rows], rows, const)
        every = max(1, self.max_iterations // 10)
        for iteration in range(self.max_iterations + 1):
            if not len(walk.rows):
                break
            last = iteration == self.max_iterations
            w = walk.w.requires_grad_(not last)
            x_adv = (torch.tanh(w) + 1) / 2
            logits = task.logits(x_adv)
            y, target = task.y[walk.rows], task.targets(walk.rows)
            lead = margin(logits, y, target)
            distance = (x_adv - walk.x).square().flatten(1).sum(dim=1)
            hit = self.reached(logits, y, target)
            won[walk.rows] |= hit
            best.offer(walk.rows, x_adv.detach(), distance.detach(), lead.detach(), hit)
            if last:
                break
            loss = distance + walk.const * (self.confidence - lead).relu()
            gradient = input_gradient(loss, w)
            best.count(walk.rows, gradient)
            if self.abort_early and iteration % every == 0:
                gradient = walk.abort(loss.detach(), x_adv.detach(), gradient)
            walk.adam(gradient, self.lr)
            total = self.binary_search_steps * self.max_iterations * len(task.x)
            task.progress((step * self.max_iterations + iteration + 1) * len(task.x), total)
        return won[rows]


class _Walk:
    """Adam in tanh space for the examples still under way, all after the same number of steps."""

    def __init__(self, x: Tensor, rows: Tensor, const: Tensor) -> None:
        self.x, self.rows, self.const = x, rows, const
        self.w = torch.atanh((2 * x - 1) * SMOOTHING)
        self.first, self.second = torch.zeros_like(x), torch.zeros_like(x)
        self.previous = torch.full_like(const, torch.inf)
        self.steps = 0

    def adam(self, gradient: Tensor, lr: float) -> None:
        """One step of Adam (Kingma and Ba 2015, algorithm 1)."""
        self.steps += 1
        self.first.mul_(BETA1).add_(gradient, alpha=1 - BETA1)
        self.second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        root = (self.second / (1 - BETA2**self.steps)).sqrt_().add_(ADAM_EPS)
        self.w = self.w.detach().addcdiv(self.first, root, value=-lr / (1 - BETA1**self.steps))

    def abort(self, loss: Tensor, x_adv: Tensor, gradient: Tensor) -> Tensor:
        """Drop the examples that moved, but whose loss did not fall by 0.01 % since the last call.

        Called before a step, so that no iterate goes unseen; returns the gradients of the examples that go on.
        """
        unmoved = (x_adv - self.x).abs().flatten(1).amax(dim=1) < UNMOVED
        going = unmoved | (loss <= 0.9999 * self.previous)
        self.previous = loss
        if not going.all():
            for name in ("x", "rows", "const", "w", "first", "second", "previous"):
                setattr(self, name, getattr(self, name)[going])
        return gradient[going]


class _Best:
    """The best image of each example over the whole attack, and its counts of gradients."""

    def __init__(self, task: Task) -> None:
        self.x_adv = task.x.clone()
        self.distance = task.clean_logits.new_full(task.y.shape, torch.inf)  # infinite: no success so far
        self.margin = torch.full_like(self.distance, -torch.inf)
        self.passes, self.zero_gradients = torch.zeros_like(task.y), torch.zeros_like(task.y)

    def offer(self, rows: Tensor, x_adv: Tensor, distance: Tensor, lead: Tensor, hit: Tensor) -> None:
        """Keep the nearest success; before the first one, the largest margin."""
        hopeful = self.distance[rows].isinf() & (lead > self.margin[rows])
        better = torch.where(hit, distance < self.distance[rows], hopeful)
        chosen = rows[better]
        self.x_adv[chosen] = x_adv[better]
        self.margin[chosen] = lead[better]
        self.distance[rows[hit & better]] = distance[hit & better]

    def count(self, rows: Tensor, gradient: Tensor) -> None:
        """One gradient more for each of `rows`."""
        self.passes[rows] += 1
        self.zero_gradients[rows] += all_zero(gradient)
