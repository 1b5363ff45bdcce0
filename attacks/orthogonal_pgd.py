"""Orthogonal PGD: a step for the classifier leaves the detector unmoved, and the other way round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.checks import check_choice
from attacks.objectives import LOSSES
from attacks.watched_pgd import Run, Stand, WatchedPGD


@dataclass(frozen=True, kw_only=True)
class OrthogonalPGD(WatchedPGD):
    """While the classifier is not fooled, the best step up its loss that does not raise the score; then the reverse.

    Bryniarski, Hingun, Pachuca, Wang and Carlini 2021, section 4.2: neither goal undoes the other. Where the steepest
    step harms the other goal, the best step orthogonal to the other gradient takes its place. As published it does so
    always (`strict`), which forbids steps that serve both: against a detector that judges an image by its predicted
    class, these lead to the images that it takes for clean. The steps are exact: see `geometry.orthogonal_l2` and
    `geometry.orthogonal_linf`. One forward pass serves both gradients.

    Parameters
    ----------
    loss : str
        ``ce``, ``margin`` or ``dlr``; see `objectives.ascent`.
    strict : bool
        Every step is orthogonal, also where the steepest one serves both goals.
    """

    loss: str = "ce"
    strict: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.loss, LOSSES, "loss")

    def max_passes(self, classes: int) -> int:
        """The most gradients one image can take: two a step."""
        return 2 * super().max_passes(classes)

    def search(self, run: Run, restart: int) -> None:
        """One walk."""
        self.walk(run, self.start(run, restart), self._climb)

    def _climb(self, stand: Stand, size: float) -> Tensor:
        loss = stand.gradient(stand.ascent(self.loss), keep=True)
        calm = stand.gradient(-stand.look.scores)
        wrong = stand.wrong.view(-1, 1, 1, 1)
        due, other = torch.where(wrong, calm, loss), torch.where(wrong, loss, calm)
        return self.ball.ascend_beside(due, other, stand.x_adv, stand.x, size, always=self.strict)
