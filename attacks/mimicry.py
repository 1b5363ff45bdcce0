"""Embedding mimicry: look, to the classifier, like a typical training image of another class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.watched_pgd import Climb, Run, Stand, WatchedPGD


@dataclass(frozen=True, kw_only=True)
class Mimicry(WatchedPGD):
    """Minimise ||z(x') - z_r||_2^2, z_r the embedding of a typical training image r of another class.

    After Sabour, Cao, Faghri and Fleet 2016. A detector that works on embeddings has to let training images pass,
    and what has their embedding passes with them. The attack needs no gradient of the score, so that a detector
    cannot hide behind one that is masked or saturated; scores only tell when it is done. Of each wrong class the
    reference nearest to z(x) is taken; restart r = 0, 1, ... goes to the class whose is the r-th nearest, a targeted
    attack to its target every time. A class without references is passed over; an example that is left with none
    stays where it starts.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "detector"})

    def search(self, run: Run, restart: int) -> None:
        """One walk towards the references of this restart."""
        self.walk(run, self.start(run, restart), self._climb(_goals(run, restart)))

    def _climb(self, goals: Tensor) -> Climb:
        """Steps towards the (N, d) embeddings."""

        def climb(stand: Stand, size: float) -> Tensor:
            gap = (stand.look.embeddings - goals[stand.rows]).double().square().sum(dim=1)
            return self.ball.ascend(stand.gradient(-gap), stand.x_adv, stand.x, size)

        return climb


def _goals(run: Run, restart: int) -> Tensor:
    """(N, d) the embedding that each example goes to; NaN, which no gradient comes from, where there is none."""
    task, classes = run.task, run.task.clean_logits.shape[1]
    with torch.no_grad():
        z = run.watched.look(task.x).embeddings
    references, labels = run.watched.references.to(z), run.watched.reference_labels.to(task.y)
    nearest = torch.full((len(z), classes), torch.inf, dtype=torch.float64, device=z.device)
    place = torch.zeros_like(nearest, dtype=torch.int64)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        nearest[:, label], which = torch.cdist(z.double(), references[members].double()).min(dim=1)
        place[:, label] = members[which]
    goal = (task.y if task.target is None else task.target)[:, None]
    aimed = torch.zeros_like(place, dtype=torch.bool).scatter(1, goal, True)
    nearest = nearest.masked_fill(aimed if task.target is None else ~aimed, torch.inf)
    # from near to far; what is not aimed at, or has no references, is infinitely far
    count = nearest.isfinite().sum(dim=1)
    rank = (restart % count.clamp(min=1))[:, None]
    chosen = nearest.argsort(dim=1, stable=True).gather(1, rank)
    if not len(references):
        return torch.full_like(z, torch.nan)
    return references[place.gather(1, chosen).squeeze(1)].masked_fill((count == 0)[:, None], torch.nan)
