"""Bootstrap resamples as counts: how often each score was drawn, instead of the scores that were drawn.

A statistic of a resample then follows from cumulative counts of scores that are sorted once, for many resamples at a
time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from detection.intervals import Interval

Array: TypeAlias = NDArray[np.float64]
#: (resamples, N) and (resamples, M) counts of the clean and of the adversarial scores -> (resamples,) values.
Statistic: TypeAlias = Callable[[Array, Array], Array]
# entries of one block of resampling counts: 2**21 float64 are 16 MiB
_BLOCK = 2**21


def resampled(
    statistic: Statistic, clean: int, adv: int, paired: bool, resamples: int, rng: np.random.Generator
) -> Array:
    """Values of a statistic over resamples.

    Parameters
    ----------
    statistic : callable
        As `weighted_auc` makes them.
    clean, adv : int
        Scores on each side, N and M.
    paired : bool
        Whole pairs are drawn (N = M), so that both sides have one count. Otherwise each side is drawn by itself.
    resamples : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        (resamples,).
    """
    rows = max(1, _BLOCK // max(clean, adv))
    values = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = _counts(clean, size, rng)
        values.append(statistic(drawn, drawn if paired else _counts(adv, size, rng)))
    return np.concatenate(values)


@dataclass(frozen=True)
class Bootstrap:
    """How a percentile interval is drawn: `paired` and the rest as in `resampled`, `level` in (0, 1)."""

    paired: bool
    resamples: int
    level: float
    seed: int

    def interval(self, value: float, statistic: Statistic, clean: int, adv: int) -> Interval:
        """`value` with the percentile interval of its `statistic`; n is `adv`."""
        rng = np.random.default_rng(self.seed)
        values = resampled(statistic, clean, adv, self.paired, self.resamples, rng)
        return Interval(value, *percentiles(values, self.level), adv)


def percentiles(values: Array, level: float) -> tuple[float, float]:
    """Limits of the percentile interval that holds a share `level` of the values."""
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def weighted_auc(clean: Array, adv: Array) -> Statistic:
    """AUC of resamples; `clean` (N,) and `adv` (M,) are finite scores.

    With the clean scores sorted and their counts summed up, the clean draws below and up to an adversarial score are
    two look-ups; their mean counts a tie as one half.
    """
    order = np.argsort(clean)
    below = np.searchsorted(clean[order], adv, side="left")
    up_to = np.searchsorted(clean[order], adv, side="right")

    def values(drawn: Array, weights: Array) -> Array:
        ranks = _ranks(drawn[:, order])
        wins = np.einsum("ij,ij->i", ranks[:, below], weights)
        wins += np.einsum("ij,ij->i", ranks[:, up_to], weights)
        return wins / (2 * len(clean) * len(adv))

    return values


def weighted_precision(clean: Array, adv: Array) -> Statistic:
    """Average precision of resamples, sum over the adversarial draws of the precision at their score, over M.

    Scores as in `weighted_auc`. Flagged at a score is what scores as much or more, so that ties stand together.
    """
    order, ascending = np.argsort(clean), np.argsort(adv)
    first = np.searchsorted(adv[ascending], adv[ascending], side="left")
    below = np.searchsorted(clean[order], adv[ascending], side="left")

    def values(drawn: Array, weights: Array) -> Array:
        weights = weights[:, ascending]
        hits = len(adv) - _ranks(weights)[:, first]
        alarms = len(clean) - _ranks(drawn[:, order])[:, below]
        # a score that was not drawn has weight 0, where hits and alarms may both be 0
        precision = hits / np.maximum(hits + alarms, 1)
        return np.einsum("ij,ij->i", precision, weights) / len(adv)

    return values


def weighted_fpr(clean: Array, adv: Array, wanted: int) -> Statistic:
    """Share of the clean draws at or above the `wanted`-th largest of the adversarial draws.

    Scores as in `weighted_auc`; 1 <= wanted <= M.
    """
    descending, order = np.argsort(-adv), np.argsort(clean)
    below = np.searchsorted(clean[order], adv[descending], side="left")

    def values(drawn: Array, weights: Array) -> Array:
        reached = np.cumsum(weights[:, descending], axis=1) >= wanted
        place = below[reached.argmax(axis=1)]
        ranks = _ranks(drawn[:, order])
        return 1 - ranks[np.arange(len(ranks)), place] / len(clean)

    return values


def _ranks(counts: Array) -> Array:
    """Draws before each place, (resamples, N + 1), of counts in ascending order of their scores."""
    ranks = np.zeros((len(counts), counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=ranks[:, 1:])
    return ranks


def _counts(n: int, resamples: int, rng: np.random.Generator) -> Array:
    """How often each of n items is drawn in each resample of size n: (resamples, n)."""
    draws = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)
