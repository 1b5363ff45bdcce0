"""Carlini and Wagner's attack on classifier and density together: the white box of the paper's Table 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attacks.base import Crafted, Task
from attacks.checks import check_choice, check_count, check_number
from attacks.joint import JointAttack
from attacks.objectives import margin, reached
from attacks.penalty import Nearest, Objective, PenaltySearch, Verdict
from attacks.randomness import choose_targets
from attacks.watched import Look, Watched

AIMS = ("runner_up", "all")


@dataclass(frozen=True)
class CarliniWagnerWhiteBox(JointAttack):
    """C&W in two stages: first misclassified as class t, then in a dense place of t as well.

    Stage 1 is C&W's L2 attack towards t at confidence 0. Stage 2 starts from its images and minimises

        ||x' - x||_2^2 + c * [max(0, -margin_t(x')) + max(0, score_t(x') - m_t)],

    where score_t is the detector's score under class t (minus the log density) and m_t the median score of clean
    images of t. Distances are from the clean image in both stages. A success is misclassified, with a score under
    the predicted class no higher than that class' median. The result is the nearest success over all classes
    aimed at; for an example without any, the image with the smallest penalty.

    Parameters
    ----------
    stage1_iterations, stage2_iterations : int
        Adam steps in each binary-search step of the stages (the paper's appendix C: 5000, 10000).
    binary_search_steps : int
        Searches over the constant, in each stage.
    lr, initial_const, abort_early
        Of both searches; see `attacks.penalty.PenaltySearch`.
    clean_quantile : float
        m_t is this quantile of the clean scores: 0.5 asks for a denser place than half of the clean images have,
        0.95 for one that 5 % of the clean images do not have.
    aim : str
        Untargeted: ``runner_up`` aims at the largest clean logit but y's, ``all`` at each wrong class in turn.
    """

    length: ClassVar[tuple[str, ...]] = ("stage1_iterations", "stage2_iterations")

    stage1_iterations: int = 5000
    stage2_iterations: int = 10000
    binary_search_steps: int = 3
    lr: float = 3e-2
    initial_const: float = 1e-1
    abort_early: bool = True
    clean_quantile: float = 0.5
    aim: str = "runner_up"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("stage1_iterations", "stage2_iterations", "binary_search_steps"):
            check_count(getattr(self, name), name)
        check_number(self.lr, "lr", strict=True)
        check_number(self.initial_const, "initial_const", strict=True)
        if not 0 < self.clean_quantile < 1:
            raise ValueError(f"clean_quantile must lie between 0 and 1, got {self.clean_quantile}")
        check_choice(self.aim, AIMS, "aim")

    def max_passes(self, classes: int) -> int:
        """Both stages, for each class aimed at."""
        aims = classes - 1 if self.aim == "all" and not self.targeted else 1
        return aims * self.binary_search_steps * (self.stage1_iterations + self.stage2_iterations)

    def hit(self, look: Look, watched: Watched, y: Tensor, target: Tensor | None) -> Tensor:
        """(n,) bool: as asked, and in a denser place than the quantile; scores are under the predicted class."""
        limits = watched.limits(self.clean_quantile)[look.logits.argmax(dim=1)]
        return reached(look.logits, y, target) & (look.scores <= limits)

    def craft(self, task: Task) -> Crafted:
        """Both stages towards each class aimed at; the nearest success counts."""
        watched = self.watched(task)
        best = Nearest(task)
        aims = list(self._aims(task))
        total = len(aims) * self.binary_search_steps * (self.stage1_iterations + self.stage2_iterations)
        for number, aim in enumerate(aims):
            done = number * total // len(aims)
            first = Nearest(task)
            self._search(self.stage1_iterations).run(
                task, self._misclassified(task, aim), first, task.x, done, total
            )
            best.passes += first.passes
            best.zero_gradients += first.zero_gradients
            done += self.binary_search_steps * self.stage1_iterations
            objective = self._dense(task, aim, watched)
            self._search(self.stage2_iterations).run(task, objective, best, first.x_adv, done, total)
        return Crafted(best.x_adv, best.passes, best.zero_gradients)

    def _search(self, iterations: int) -> PenaltySearch:
        return PenaltySearch(
            iterations, self.binary_search_steps, self.lr, self.initial_const, self.abort_early
        )

    def _aims(self, task: Task) -> Iterator[Tensor]:
        """(N,) classes to move to, one tensor for each pass over the batch."""
        classes = task.clean_logits.shape[1]
        if task.target is not None:
            yield task.target
        elif self.aim == "runner_up":
            yield choose_targets("runner_up", task.clean_logits, task.y, task.seed, task.index)
        else:
            yield from ((task.y + shift) % classes for shift in range(1, classes))

    @staticmethod
    def _misclassified(task: Task, aim: Tensor) -> Objective:
        def objective(x_adv: Tensor, rows: Tensor) -> Verdict:
            lead = margin(task.logits(x_adv), task.y[rows], aim[rows])
            return Verdict((task.slack - lead).relu(), lead, lead >= task.slack)

        return objective

    def _dense(self, task: Task, aim: Tensor, watched: Watched) -> Objective:
        limits = watched.limits(self.clean_quantile)

        def objective(x_adv: Tensor, rows: Tensor) -> Verdict:
            look = watched.look(x_adv, aim[rows])
            excess = (look.scores - limits[aim[rows]]).relu().to(x_adv.dtype)
            lead = margin(look.logits, task.y[rows], aim[rows])
            shortfall = (task.slack - lead).relu()
            penalty = shortfall + excess
            hit = (look.logits.argmax(dim=1) == aim[rows]) & (lead >= task.slack)
            hit &= look.scores <= limits[aim[rows]]
            return Verdict(penalty, -penalty, hit)

        return objective
