"""The Square attack on a classifier alone, which no detector watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attacks.base import Attack, Task
from attacks.joint import Best
from attacks.objectives import margin, reached_by
from attacks.square import Square
from attacks.target import Logits
from attacks.watched import Look, Watched


@dataclass(frozen=True, kw_only=True)
class ClassifierSquare(Square):
    """Random search on the classifier's margin (Andriushchenko et al. 2020); parameters as in `Square`."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def judge(
        self, target: Any, x_adv: Tensor, y: Tensor, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Success is misclassification: two (n,) tensors."""
        return Attack.judge(self, target, x_adv, y, goal)

    def watched(self, task: Task) -> Watched:
        """The task's classifier with a detector that never raises an alarm."""
        return Unwatched(task.logits)

    def _look(
        self, task: Task, watched: Watched, best: Best, rows: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Look at images of the examples `rows`: the examples that go on, and the margins of all."""
        logits, y, target = watched.look(images).logits, task.y[rows], task.targets(rows)
        lead, hit = margin(logits, y, target).double(), reached_by(task.slack, logits, y, target)
        best.offer(rows, images, lead, -lead, hit, hit)  # of two successes, the wider margin
        return rows[~hit] if self.early_stop else rows, lead


class Unwatched:
    """A classifier in the form of a watched one, every score of which is minus infinity.

    Parameters
    ----------
    logits : callable
        Images (n, C, H, W) to logits (n, K).
    """

    threshold, scale = 0.0, 1.0

    def __init__(self, logits: Logits) -> None:
        self.logits = logits
        self.references, self.reference_labels = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        """Logits, and scores of minus infinity."""
        scores = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
        return Look(self.logits(x), scores, x.new_zeros(len(x), 0))

    def limits(self, quantile: float) -> Tensor:
        """No limit: (0,)."""
        return torch.zeros(0, dtype=torch.float64)
