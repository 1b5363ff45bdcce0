"""Attacks on classifier and detector together: misclassified, and no alarm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attacks.base import Attack, Task
from attacks.objectives import margin, reached
from attacks.task import Counts
from attacks.watched import Look, Watched, require_watched


@dataclass(frozen=True, kw_only=True)
class JointAttack(Attack):
    """An attack that succeeds where the image is misclassified (or taken for its target) *and* not flagged.

    Flagged is what scores above the threshold of the `Watched` target. An attack that needs the gradient of the
    score says so in `needs` (``detector_gradients``), one that reads scores alone does not.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "detector", "detector_gradients"})

    def hit(self, look: Look, watched: Watched, y: Tensor, target: Tensor | None) -> Tensor:
        """(n,) bool: do these logits and scores count as a success?"""
        return reached(look.logits, y, target) & (look.scores <= watched.threshold)

    def judge(
        self, target: Any, x_adv: Tensor, y: Tensor, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Success by the joint criterion, and the predictions: two (n,) tensors."""
        watched = require_watched(target, type(self).__name__)
        if not len(x_adv):
            return torch.zeros_like(y, dtype=torch.bool), torch.zeros_like(y)
        with torch.no_grad():
            look = watched.look(x_adv)
        return self.hit(look, watched, y, goal), look.logits.argmax(dim=1)

    def watched(self, task: Task) -> Watched:
        """The task's target with its detector; TypeError where it has none."""
        return require_watched(task.model, type(self).__name__)


def joint_margin(look: Look, watched: Watched, y: Tensor, target: Tensor | None = None) -> Tensor:
    """(n,) float64, the smaller of two leads: of the wrong class, and of silence over the alarm.

    min(margin(o, y), (threshold - score) / scale): above 0 where the image is misclassified and not flagged. It is
    the margin of the classifier that has a class more for "adversarial" (Carlini and Wagner 2017b, section 3.3),
    written so that it holds for logits and scores of any sign.
    """
    lead = margin(look.logits, y, target).double()
    silence = (watched.threshold - look.scores) / watched.scale
    return torch.minimum(lead, silence)


class Best(Counts):
    """The best image of each of N examples over a whole attack inside a ball, and its counts of gradients.

    A joint success comes before what is merely misclassified, and that before what is not. Of two misclassified
    images the lower score is better, of two others the larger margin. So where an attack goes on after its first
    success (``early_stop=False``), one result serves every threshold.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.x_adv = task.x.clone()
        self.score = torch.full_like(task.y, torch.inf, dtype=torch.float64)
        self.margin = torch.full_like(self.score, -torch.inf)
        self.hit = torch.zeros_like(task.y, dtype=torch.bool)
        self.wrong = self.hit.clone()

    def offer(
        self, rows: Tensor, x_adv: Tensor, lead: Tensor, scores: Tensor, wrong: Tensor, hit: Tensor
    ) -> None:
        """Show images of the examples `rows`.

        Parameters
        ----------
        rows : Tensor
            (n,) int64, the examples.
        x_adv : Tensor
            (n, C, H, W) their images.
        lead, scores : Tensor
            (n,) margins and scores; a score of NaN counts as the worst, infinity.
        wrong, hit : Tensor
            (n,) bool: the classifier is fooled, see `objectives.reached`; the detector as well.
        """
        lead = lead.detach().double()
        scores = scores.detach().double().nan_to_num(torch.inf, torch.inf, -torch.inf)
        fitter = torch.where(wrong, scores < self.score[rows], lead > self.margin[rows])
        better = torch.where(wrong != self.wrong[rows], wrong, fitter)
        better = torch.where(hit != self.hit[rows], hit, better)
        chosen = rows[better]
        self.x_adv[chosen] = x_adv.detach()[better]
        self.margin[chosen] = lead[better]
        self.score[chosen] = torch.where(wrong, scores, torch.inf)[better]
        self.wrong[chosen], self.hit[chosen] = wrong[better], hit[better]
