"""Harm: an image inside a ball that is misclassified and not flagged."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pdm_lightning.card.compare import rows, shared
from pdm_lightning.card.evidence import Evidence, Run, Watched
from pdm_lightning.matching import inside

Ball = tuple[str, float]


def detectors(evidence: Evidence, model: str) -> list[str]:
    """Names of a model's detectors, as first met."""
    return list(dict.fromkeys(name for run in evidence.study() if run.model == model for name in run.watched))


def balls(runs: Iterable[Run]) -> list[Ball]:
    """Balls of these runs, each once."""
    return list(dict.fromkeys(run.ball for run in runs if run.ball is not None))


def level(watched: Watched) -> float | None:
    """The threshold at the largest false-positive rate that has one: no adversary is caught more easily."""
    known = {float(fpr): limit for fpr, limit in watched.thresholds.items() if limit is not None}
    return known[max(known)] if known else None


def within(evidence: Evidence, model: str, ball: Ball, detector: str, threats: Iterable[str]) -> list[Run]:
    """The study's runs that can tell of harm in a ball: held to it, or held to none and judged by their distances."""
    return [
        run
        for run in evidence.study()
        if run.model == model
        and not run.threats.isdisjoint(threats)
        and run.ball in (None, ball)
        and detector in run.watched
        and level(run.watched[detector]) is not None
    ]


def harm(run: Run, ball: Ball, detector: str) -> Tensor:
    """(N,) bool: misclassified, unflagged, inside the ball."""
    watched = run.watched[detector]
    limit = level(watched)
    distance = run.l2 if ball[0] == "l2" else run.linf
    return (
        run.fooled
        & inside(distance, ball[1])
        & (watched.adversarial <= (float("-inf") if limit is None else limit))
    )


def worst(runs: list[Run], images: Tensor, ball: Ball, detector: str) -> Tensor:
    """(n,) bool: is the image harmed by any of the runs, all of which attacked it?"""
    return torch.stack([harm(run, ball, detector)[rows(run, images)] for run in runs]).any(dim=0)


def all_attacked(runs: list[Run]) -> Tensor:
    """(n,) images that every run attacked; none without a run."""
    return shared(*runs) if runs else torch.empty(0, dtype=torch.int64)
