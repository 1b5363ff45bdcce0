"""Projected gradient ascent against a classifier and its detector: the loop that the adaptive attacks share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.base import Crafted, Task, finite_gradient
from attacks.checks import check_count, check_number
from attacks.geometry import Ball
from attacks.joint import Best, JointAttack
from attacks.objectives import ascent, margin, reached
from attacks.watched import Look, Watched

FIRST_STEP = 0.25
"""The default first step, in units of eps: large, as the gradient of a density is of use near its kernels alone."""


@dataclass(frozen=True)
class Stand:
    """The examples under way in one iteration, and what one pass through classifier and detector told.

    Attributes
    ----------
    rows : Tensor
        (n,) int64, which examples of the task.
    x, x_adv : Tensor
        Clean images and iterates, (n, C, H, W); `x_adv` is the leaf of the graph.
    y, target : Tensor
        (n,) labels moved away from, (n,) classes aimed at or None.
    look : Look
        With graph; the scores are those of the class that the example was on its way to.
    wrong, going : Tensor
        (n,) bool: the classifier is fooled; the example takes another step.
    best : Best
        Counts the gradients.
    """

    rows: Tensor
    x: Tensor
    x_adv: Tensor
    y: Tensor
    target: Tensor | None
    look: Look
    wrong: Tensor
    going: Tensor
    best: Best

    def ascent(self, loss: str) -> Tensor:
        """(n,) float64 classifier loss to climb; in float64 a confident softmax is not yet 1. See `objectives`."""
        return ascent(loss, self.look.logits.double(), self.y, self.target)

    def gradient(self, objective: Tensor, *, keep: bool = False, fallback: Tensor | None = None) -> Tensor:
        """Gradient with respect to `x_adv`, see `finite_gradient`, counted once for the examples that go on.

        Parameters
        ----------
        objective : Tensor
            (n,), one value an example.
        keep : bool
            Keep the graph for another backward pass.
        fallback : Tensor, optional
            (n,), climbed instead where the gradient of the objective is not finite.
        """
        gradient = finite_gradient(objective, self.x_adv, fallback=fallback, keep=keep)
        self.best.count(self.rows[self.going], gradient[self.going])
        return gradient


Climb = Callable[[Stand, float], Tensor]
"""From the examples under way and the size of the step to the next iterates (n, C, H, W), inside ball and box."""


@dataclass
class Run:
    """One call of an attack: its task, its target, its best images, and the walks that are over."""

    task: Task
    watched: Watched
    best: Best
    walks: int = 0


@dataclass(frozen=True, kw_only=True)
class WatchedPGD(JointAttack):
    """Projected gradient ascent on a classifier and its detector; a subclass says where the steps go.

    x_{k+1} = P(x_k + a_k d_k), P the projection onto the ball around x and the box [0, 1], a_k falling from `step`
    to 0 along half a cosine: first across the ball, then fine. The first restart begins at x, the others at random
    points of the ball. Every iterate is evaluated, the last included; the result is what is fooled and unflagged,
    else what is fooled with the lowest score, else what comes closest to being fooled.

    Parameters
    ----------
    norm : str
        ``linf`` or ``l2``.
    eps : float
        Radius of the ball, in units of the pixel range; 0 is allowed.
    iterations : int
        Steps of each walk. A start has one walk, or several where a subclass says so: then so many times the steps.
    restarts : int
        Starts, the one at x included.
    step : float or None
        Size of the first step, in the norm; None: eps / 4.
    early_stop : bool
        An example leaves the batch once it is fooled and unflagged; False: it goes on to lower its score.
    """

    length: ClassVar[tuple[str, ...]] = ("iterations",)

    norm: str = "linf"
    eps: float = 0.1
    iterations: int = 100
    restarts: int = 3
    step: float | None = None
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        Ball(self.norm, self.eps)  # checks both
        check_count(self.iterations, "iterations")
        check_count(self.restarts, "restarts")
        if self.step is not None:
            check_number(self.step, "step", strict=True)

    @property
    def ball(self) -> Ball:
        """Where the images may go."""
        return Ball(self.norm, self.eps)

    @property
    def walks(self) -> int:
        """The most walks of `iterations` steps that one example can take."""
        return self.restarts

    def max_passes(self, classes: int) -> int:
        """The most gradients one image can take: one a step."""
        return self.walks * self.iterations

    def craft(self, task: Task) -> Crafted:
        """`restarts` searches; finished examples leave the batch."""
        run = Run(task, self.watched(task), Best(task))
        for restart in range(self.restarts):
            self.search(run, restart)
        total = self.walks * self.iterations * len(task.x)
        task.progress(total, total, active=0)
        return Crafted(run.best.x_adv, run.best.passes, run.best.zero_gradients)

    @abstractmethod
    def search(self, run: Run, restart: int) -> None:
        """What is done from one start: one or more calls of `walk`."""

    def start(self, run: Run, restart: int) -> Tensor:
        """(N, C, H, W) where the walks of a restart begin: x itself, or a random point of the ball."""
        task = run.task
        return self.ball.start(task.x, task.seed, task.index, f"start {restart}") if restart else task.x

    def walk(self, run: Run, start: Tensor, climb: Climb) -> tuple[Tensor, Tensor]:
        """`iterations` steps of the examples still open.

        Parameters
        ----------
        run : Run
            Its best images are kept up to date.
        start : Tensor
            (N, C, H, W) first iterates of all examples.
        climb : callable
            Makes the steps.

        Returns
        -------
        ends, fooled : Tensor
            (N, C, H, W) last iterates, and (N,) bool, whether these fool the classifier.
        """
        task = run.task
        ends, fooled = start.clone(), run.best.hit.clone()
        rows = torch.arange(len(task.x), device=task.x.device)
        if self.early_stop:
            rows = rows[~run.best.hit]
        x_adv, aims = start[rows], _aims(task.clean_logits[rows], task, rows)
        for iteration in range(self.iterations + 1):
            if not len(rows):
                break
            last = iteration == self.iterations
            stand = self._stand(run, rows, x_adv.requires_grad_(not last), aims)
            ends[rows], fooled[rows] = x_adv.detach(), stand.wrong
            if last or not stand.going.any():
                break
            moved = climb(stand, self._size(iteration)).detach()
            aims = _aims(stand.look.logits.detach(), task, rows)
            rows, x_adv, aims = (t[stand.going] for t in (rows, moved, aims))
            done = (run.walks * self.iterations + iteration + 1) * len(task.x)
            task.progress(done, self.walks * self.iterations * len(task.x), active=len(rows))
        run.walks += 1
        return ends, fooled

    def _size(self, iteration: int) -> float:
        first = FIRST_STEP * self.eps if self.step is None else self.step
        return first * (1 + math.cos(math.pi * iteration / self.iterations)) / 2

    def _stand(self, run: Run, rows: Tensor, x_adv: Tensor, aims: Tensor) -> Stand:
        """One pass for the logits, and for the scores as if each example were where it is going."""
        y, target = run.task.y[rows], run.task.targets(rows)
        look = run.watched.look(x_adv, aims)
        wrong = reached(look.logits, y, target)
        seen = Look(look.logits.detach(), look.scores.detach().clone(), look.embeddings.detach())
        # fooled, but as another class than planned: the detector's word on that class counts
        astray = wrong & (seen.logits.argmax(dim=1) != aims)
        if astray.any():
            with torch.no_grad():
                seen.scores[astray] = run.watched.look(x_adv[astray]).scores
        hit = self.hit(seen, run.watched, y, target)
        run.best.offer(rows, x_adv, margin(seen.logits, y, target), seen.scores, wrong, hit)
        going = ~hit if self.early_stop else torch.ones_like(hit)
        return Stand(rows, run.task.x[rows], x_adv, y, target, look, wrong, going, run.best)


def _aims(logits: Tensor, task: Task, rows: Tensor) -> Tensor:
    """(n,) the class that an example is on its way to: its target, else the most likely wrong one."""
    target = task.targets(rows)
    return logits.scatter(1, task.y[rows][:, None], -torch.inf).argmax(dim=1) if target is None else target
