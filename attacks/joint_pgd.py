"""Joint-loss PGD: one sum of classifier loss and detector score, its weight found for every example."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.checks import check_choice, check_count, check_number
from attacks.objectives import LOSSES
from attacks.watched_pgd import Climb, Run, Stand, WatchedPGD


@dataclass(frozen=True, kw_only=True)
class JointPGD(WatchedPGD):
    """Maximise loss - lambda * score / scale, with lambda of each example by bisection.

    From each start, the first walk has lambda 0 and is plain PGD. The second has `initial_lambda`; from then on an
    example whose walk ended fooled gets a larger lambda, another a smaller one: a factor of ten until both kinds
    have been seen, then the geometric mean between them. With `early_stop` only flagged examples are still there to
    get a larger one; without it the unflagged go on likewise, towards a lower score. A start takes `searches` walks
    of `iterations` steps each. These walks begin in turn where plain PGD ended, if
    it fooled the classifier, and where it began: which of the two gets past a detector differs between examples.

    Parameters
    ----------
    loss : str
        ``ce``, ``margin`` or ``dlr``; see `objectives.ascent`.
    searches : int
        Walks from a start, the one at lambda 0 included.
    initial_lambda : float
        First weight of the score, which is measured in the target's `scale`.
    """

    loss: str = "ce"
    searches: int = 4
    initial_lambda: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.loss, LOSSES, "loss")
        check_count(self.searches, "searches")
        check_number(self.initial_lambda, "initial_lambda", strict=True)

    @property
    def walks(self) -> int:
        """Searches from every start."""
        return self.restarts * self.searches

    def search(self, run: Run, restart: int) -> None:
        """The bisection from one start."""
        weight = torch.zeros_like(run.best.score)
        lower, upper = weight, torch.full_like(weight, torch.inf)
        begin = away = self.start(run, restart)
        for number in range(self.searches):
            ends, fooled = self.walk(run, (begin, away)[number % 2], self._climb(weight / run.watched.scale))
            if number == 0:
                away = torch.where(fooled.view(-1, 1, 1, 1), ends, begin)
                weight = torch.full_like(weight, self.initial_lambda)
                continue
            lower, upper = torch.where(fooled, weight, lower), torch.where(fooled, upper, weight)
            one_sided = torch.where(fooled, weight * 10, weight / 10)
            weight = torch.where((lower > 0) & upper.isfinite(), (lower * upper).sqrt(), one_sided)

    def _climb(self, weight: Tensor) -> Climb:
        """Steps up the sum, with the (N,) weights of the score."""

        def climb(stand: Stand, size: float) -> Tensor:
            loss = stand.ascent(self.loss)
            gradient = stand.gradient(loss - weight[stand.rows] * stand.look.scores, fallback=loss)
            return self.ball.ascend(gradient, stand.x_adv, stand.x, size)

        return climb
