"""Selective PGD: fool the classifier first, then calm the detector, never both at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.checks import check_choice
from attacks.objectives import LOSSES
from attacks.watched_pgd import Run, Stand, WatchedPGD


@dataclass(frozen=True, kw_only=True)
class SelectivePGD(WatchedPGD):
    """While the classifier is not fooled, a step up its loss; once it is, a step down the score.

    Bryniarski, Hingun, Pachuca, Wang and Carlini 2021, section 4.1. No sum of the two, so no weight to tune and no
    gradient that drowns the other.

    Parameters
    ----------
    loss : str
        ``ce``, ``margin`` or ``dlr``; see `objectives.ascent`.
    """

    loss: str = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.loss, LOSSES, "loss")

    def search(self, run: Run, restart: int) -> None:
        """One walk."""
        self.walk(run, self.start(run, restart), self._climb)

    def _climb(self, stand: Stand, size: float) -> Tensor:
        loss = stand.ascent(self.loss)
        due = torch.where(stand.wrong, -stand.look.scores, loss)
        gradient = stand.gradient(due, fallback=loss * ~stand.wrong)
        return self.ball.ascend(gradient, stand.x_adv, stand.x, size)
