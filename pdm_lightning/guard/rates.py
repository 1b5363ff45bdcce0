"""Thresholds, p-values and realised rates: what a score means beside those of clean images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detection import MIN_ALARMS, Interval, frozen_threshold, proportion
from pdm_lightning.guard.checks import GuardFileError, record, whole


def alarm_threshold(clean_scores: Tensor, fpr: float) -> float:
    """Freeze the threshold on clean validation scores: an image is flagged where its score lies strictly above.

    Parameters
    ----------
    clean_scores : Tensor
        (N,) finite scores.
    fpr : float
        The false-positive rate allowed, in (0, 0.5]: at most floor(fpr N) of these scores lie above the threshold.

    Raises
    ------
    ValueError
        For a rate outside (0, 0.5], or fewer than 10 / fpr scores: the rate would be mere chance.
    """
    if isinstance(fpr, bool) or not 0 < fpr <= 0.5:
        raise ValueError(f"the false-positive rate must lie above 0 and be at most 0.5, got {fpr}")
    found = frozen_threshold(clean_scores, fpr)
    if found is None:
        n = len(clean_scores)
        least = f", or a rate of at least {ceiling(MIN_ALARMS / n):g}" if n > MIN_ALARMS else ""
        raise ValueError(
            f"a false-positive rate of {fpr:g} needs {images_for(fpr)} clean validation images, there are {n}: "
            f"give more{least}"
        )
    return found


def images_for(fpr: float) -> int:
    """Clean validation images that a rate needs: 10 / fpr, rounded up."""
    return math.ceil(MIN_ALARMS / fpr - 1e-9)


def ceiling(rate: float) -> float:
    """Round a rate up to three digits, so that it is enough when it is typed."""
    digits = 2 - math.floor(math.log10(rate))
    return math.ceil(rate * 10**digits) / 10**digits


def p_values(scores: Tensor, clean_scores: Tensor) -> Tensor:
    """How likely a clean image scores as much or more.

    p = (1 + #{clean scores >= s}) / (N + 1)

    The image itself counts among the clean ones, so that p is never 0, and P(p <= a) <= a for a clean image that is
    exchangeable with the N (a conformal p-value).

    Parameters
    ----------
    scores : Tensor
        (M,) float64.
    clean_scores : Tensor
        (N,) float64, ascending.

    Returns
    -------
    Tensor
        (M,) float64 in (0, 1].
    """
    n = len(clean_scores)
    above = n - torch.searchsorted(clean_scores, scores.contiguous(), side="left")
    return (1 + above).double() / (n + 1)


_RATE = record(hits=whole(0, 2**40), n=whole(1, 2**40))


@dataclass(frozen=True)
class Rate:
    """So many of n, with Wilson's 95 % interval."""

    hits: int
    n: int

    @property
    def interval(self) -> Interval:
        """Share, and its limits."""
        return proportion(self.hits, self.n)

    def __str__(self) -> str:
        found = self.interval
        assert found.value is not None and found.low is not None and found.high is not None
        share, low, high = (f"{100 * value:.1f}" for value in (found.value, found.low, found.high))
        return f"{share} % [{low}, {high}] of {self.n:,}"

    def to_json(self) -> dict[str, int]:
        """Give both counts."""
        return {"hits": self.hits, "n": self.n}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Rate:
        """Take over both counts; `GuardFileError` where they make no rate."""
        told = _RATE(value, where)
        if told["hits"] > told["n"]:
            raise GuardFileError(f"{where}: more hits than images")
        return cls(**told)
