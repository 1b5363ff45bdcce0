"""The Square attack on a classifier alone, which no detector watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from attacks.base import Attack, Task
from attacks.joint import Best
from attacks.objectives import margin, reached_by
from attacks.square import Square


@dataclass(frozen=True, kw_only=True)
class ClassifierSquare(Square):
    """Random search on the classifier's margin (Andriushchenko et al. 2020); parameters as in `Square`."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def judge(
        self, target: Any, x_adv: Tensor, y: Tensor, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Success is misclassification: two (n,) tensors."""
        return Attack.judge(self, target, x_adv, y, goal)

    def _look(self, task: Task, best: Best, rows: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Look at images of the examples `rows`: the examples that go on, and the margins of all."""
        logits, y, target = task.logits(images), task.y[rows], task.targets(rows)
        lead, hit = margin(logits, y, target).double(), reached_by(task.slack, logits, y, target)
        best.offer(rows, images, lead, -lead, hit, hit)  # of two successes, the wider margin
        return rows[~hit] if self.early_stop else rows, lead
