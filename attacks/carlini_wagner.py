"""Carlini and Wagner's L2 attack, with every example's search its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attacks.base import Attack, Crafted, Task
from attacks.checks import check_count, check_number
from attacks.objectives import margin, reached, reached_by
from attacks.penalty import Nearest, PenaltySearch, Verdict


@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Minimise ||x' - x||_2^2 + c * max(0, confidence - margin(x')) over w, where x' = (tanh(w) + 1) / 2.

    Carlini and Wagner 2017, section VI-A; the search is `attacks.penalty.PenaltySearch`. The result is the
    nearest iterate whose margin reaches the confidence; for an example without any, the iterate with the largest
    margin, and `success` false, also where that one is misclassified.

    Parameters
    ----------
    confidence : float
        Logit margin that a success has to reach, >= 0.
    max_iterations, binary_search_steps, lr, initial_const, abort_early
        Of the search.
    """

    length: ClassVar[tuple[str, ...]] = ("max_iterations",)

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

    def max_passes(self, classes: int) -> int:
        """One gradient an iteration and search step."""
        return self.max_iterations * self.binary_search_steps

    def reached(self, logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """(n,) bool: the prediction is as asked, and by a margin of at least the confidence."""
        return reached_by(self.confidence, logits, y, target)

    def craft(self, task: Task) -> Crafted:
        """The binary search over the constants; finished examples leave the batch."""
        # the nearest of many iterates hugs the limit: beyond it by what the judge may see differently
        limit = self.confidence + task.slack

        def objective(x_adv: Tensor, rows: Tensor) -> Verdict:
            logits, y, target = task.logits(x_adv), task.y[rows], task.targets(rows)
            lead = margin(logits, y, target)
            return Verdict((limit - lead).relu(), lead, reached(logits, y, target) & (lead >= limit))

        best = Nearest(task)
        search = PenaltySearch(
            self.max_iterations, self.binary_search_steps, self.lr, self.initial_const, self.abort_early
        )
        search.run(task, objective, best, task.x)
        return Crafted(best.x_adv, best.passes, best.zero_gradients)
