"""Intervals of differences and ratios, and whether they lie in the region that a claim asks for.

All are 95 % intervals. Two measures are combined as if they were independent, by the distances from each value to its
own bounds (MOVER; Zou and Donner, Statistics in Medicine 2008), which keeps the skew of a rate near 0 or 1. Measures of
one study mostly share their images; where that makes them rise and fall together, the true interval of a difference is
shorter. How often a claim of many comparisons is wrongly refuted is another matter: see `verdicts.corrected`.

Of several seeds there are two intervals: Student's t over the seeds (paired, for a difference), which is of other
trainings on these images, and the images' own, which is of other images. Claims take both together, from the lower to
the upper end: that of two or three seeds is short by chance too often to decide alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from scipy.special import stdtr

from pdm_lightning.claims.verdicts import REFUTED, REPRODUCED, UNDECIDED
from pdm_lightning.report.cells import alike, t_quantile

TAIL = 0.025
"""Probability beyond each end of an interval."""


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval, which are None where none is known.

    `freedom` has the degrees of freedom of Student's t where the interval is one of several seeds.
    """

    value: float
    low: float | None = None
    high: float | None = None
    freedom: int | None = None

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None and self.high is not None


def difference(a: Estimate, b: Estimate) -> Estimate:
    """The estimate a - b of independent a and b.

    With distances l = value - low and u = high - value, the interval is
    [d - sqrt(l_a^2 + u_b^2), d + sqrt(u_a^2 + l_b^2)].
    """
    value = a.value - b.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value)
    down = math.hypot(max(a.value - a.low, 0.0), max(b.high - b.value, 0.0))
    up = math.hypot(max(a.high - a.value, 0.0), max(b.value - b.low, 0.0))
    freedom = min((one.freedom for one in (a, b) if one.freedom is not None), default=None)
    return Estimate(value, value - down, value + up, freedom)


def logarithm(a: Estimate) -> Estimate:
    """Of a positive estimate; a bound that is not positive becomes minus infinity.

    Raises
    ------
    ValueError
        If the value is not positive.
    """
    if a.low is None or a.high is None:
        return Estimate(math.log(a.value))
    low = math.log(a.low) if a.low > 0 else -math.inf
    return Estimate(math.log(a.value), low, math.log(a.high), a.freedom)


def exponential(a: Estimate) -> Estimate:
    """Undoes `logarithm`."""
    if a.low is None or a.high is None:
        return Estimate(math.exp(a.value))
    return Estimate(math.exp(a.value), math.exp(a.low), math.exp(a.high), a.freedom)


def mean(values: Sequence[float]) -> Estimate:
    """Mean of two or more values with Student's t interval, which needs them to differ."""
    centre = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))
    if alike(centre, spread):
        return Estimate(centre)
    half = t_quantile(1 - TAIL, len(values) - 1) * spread / math.sqrt(len(values))
    return Estimate(centre, centre - half, centre + half, len(values) - 1)


def wider(seeds: Estimate, images: Estimate) -> Estimate:
    """The value of `seeds` from the lower of the two lower ends to the upper of the upper; of the one known, else."""
    if not images.known:
        return seeds
    ends = [end for one in (seeds, images) for end in (one.low, one.high) if end is not None]
    return Estimate(seeds.value, min(ends), max(ends), seeds.freedom)


def from_edge(n: int) -> float:
    """How far from 1 the mean of n values in [0, 1] may lie that all were 1.

    A mean m makes n ones with probability m^n at most (P(X = 1) <= E X), which is below `TAIL` for m < TAIL^(1/n). A
    bootstrap of such values says nothing: all its resamples are alike.
    """
    return float(1 - TAIL ** (1 / n))


def decide(found: Estimate, least: float, most: float, *, strict: bool = False) -> str:
    """Whether the interval lies in [least, most] (reproduced), outside (not reproduced), or on its edge (undecided).

    With `strict` the region is open: an interval that touches its end is undecided.
    """
    low, high = found.low, found.high
    if low is None or high is None:
        return UNDECIDED
    if high < least or low > most:
        return REFUTED
    inside = least < low and high < most if strict else least <= low and high <= most
    return REPRODUCED if inside else UNDECIDED


def p_outside(found: Estimate, least: float, most: float) -> float | None:
    """Two-sided p-value of lying in [least, most]: that at which the interval, stretched, would just reach it.

    Stretched by the normal distribution, or by Student's t. 1 for a value inside; None without an interval. Below .05
    where `decide` refutes.
    """
    if found.low is None or found.high is None:
        return None
    below = found.value < least
    away = least - found.value if below else found.value - most
    arm = found.high - found.value if below else found.value - found.low
    if away <= 0:
        return 1.0
    if arm <= 0:
        return 0.0
    if found.freedom is None:
        return 2 * NormalDist().cdf(NormalDist().inv_cdf(TAIL) * away / arm)
    return float(2 * stdtr(found.freedom, t_quantile(TAIL, found.freedom) * away / arm))
