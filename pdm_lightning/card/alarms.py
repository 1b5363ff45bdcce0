"""Check 10, second half: are alarms on clean images as frequent as their thresholds promise?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import share
from pdm_lightning.card.evidence import Watched

FAMILY = 0.05
"""Probability that sound thresholds, all of a study together, fail the check."""


@dataclass(frozen=True)
class Trial:
    """One threshold on one model's clean test images.

    Attributes
    ----------
    what, group : str
        In words; those of one group are the detectors of a model at one rate.
    told : mapping
        ``flagged`` of ``n`` test images, at a threshold that allows ``allowed`` of ``m`` validation images; ``tied``,
        the share of clean images that lie on it and count for either side.
    """

    what: str
    group: str
    told: dict[str, Any] = field(hash=False)

    @property
    def _law(self) -> Any:
        """Alarms follow a beta-binomial distribution, given exchangeable clean images.

        A threshold that lets ``allowed`` of m validation images lie above it has a true rate of Beta(allowed + 1,
        m - allowed), whatever the scores.
        """
        from scipy.stats import betabinom  # a second that planning a study need not wait

        return betabinom(self.told["n"], self.told["allowed"] + 1, self.told["m"] - self.told["allowed"])

    @property
    def p(self) -> float:
        """Two-sided p-value that the threshold is sound."""
        flagged, tied = self.told["flagged"], round(self.told["tied"] * self.told["n"])
        above, below = self._law.sf(flagged - 1), self._law.cdf(flagged + tied)
        return min(1.0, 2 * float(min(above, below)))

    def accepted(self, level: float) -> tuple[int, int]:
        """Fewest and most alarms that a test of this level lets pass."""
        low, high = (int(self._law.ppf(q)) for q in (level / 2, 1 - level / 2))
        return low, high


def share_tied(watched: Watched, fpr: str) -> float:
    """Share of the clean images whose score is the threshold."""
    limit = watched.thresholds.get(fpr)
    return 0.0 if limit is None else share(watched.clean == limit)


def judge_alarms(trials: Sequence[Trial], found: Finding) -> None:
    """Hold each threshold, and those of a model together, against what they promise.

    One threshold among many has to be far off to tell it from chance: Holm's steps (1979) keep the probability that
    any sound one fails. What is wrong with the images is wrong for all detectors of a model, each of them a little:
    twice the mean of their p-values is a p-value whatever they have in common (Rueschendorf 1982). Where there are
    models with several detectors each of the two families has half of `FAMILY`.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.group, []).append(trial)
    pooled = {
        group: min(1.0, 2 * math.fsum(trial.p for trial in members) / len(members))
        for group, members in groups.items()
        if len(members) > 1
    }
    family = FAMILY / 2 if pooled else FAMILY
    for trial, (bad, level) in zip(trials, holm([trial.p for trial in trials], family), strict=True):
        _judge(trial, bad, level, found)
    for (group, p), (bad, level) in zip(pooled.items(), holm(list(pooled.values()), family), strict=True):
        rates = [trial.told["flagged"] / trial.told["n"] for trial in groups[group]]
        mean = math.fsum(rates) / len(rates)
        fault = f"{mean:.1%} of the clean test images are flagged on average, which chance does not explain"
        fault += f" (p {p:.2g}, {level:.2g} the least): freeze thresholds on images like those of the test"
        found.judge(group, fault if bad else "", mean_rate=mean, p=p, level=level, detectors=len(rates))


def _judge(trial: Trial, bad: bool, level: float, found: Finding) -> None:
    low, high = trial.accepted(level)
    n, flagged = trial.told["n"], trial.told["flagged"]
    expected = f"{low / n:.1%} to {high / n:.1%} ({low} to {high}) expected"
    fault = f"{flagged} of {n} clean test images are flagged, {expected}: freeze it on unseen images"
    numbers = {"rate": flagged / n, "accepted": [low / n, high / n], "p": trial.p}
    found.judge(trial.what, fault if bad else "", **trial.told, low=low, high=high, **numbers)


def holm(values: Sequence[float], family: float) -> list[tuple[bool, float]]:
    """For each p-value, in the order given: whether it is rejected, and the level that it was held against.

    The k-th smallest of m is held against family / (m - k + 1); the first that passes ends it, and its level is that of
    all larger ones.
    """
    found: list[tuple[bool, float]] = [(False, family)] * len(values)
    going, level = True, family
    for k, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        if going:
            level = family / (len(values) - k)
            going = values[place] <= level
        found[place] = going, level
    return found
