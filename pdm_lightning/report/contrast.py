"""The difference of two measured values, and whether it may be chance: unpaired, or over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from pdm_lightning.report.cells import Measure, alike, t_interval
from pdm_lightning.report.difference_tables import t_test

#: What a difference is taken over, and how that is printed.
HOW = {
    "images": "by image",
    "seeds": "by seed",
    "unpaired": "unpaired",
    "same": "same artifact",
}
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Contrast:
    """A minus B.

    Attributes
    ----------
    how : str
        One of `HOW`.
    value, low, high : float or None
        The difference and its 95 % interval.
    p : float or None
        Two-sided p-value of no difference.
    n : int or None
        Images that it rests on, or seeds.
    why : str
        Why it is not paired image by image, where it is not.
    """

    how: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int | None = None
    why: str = ""


def unpaired(a: Measure, b: Measure, why: str = "") -> Contrast:
    """A minus B of two independent values, from the interval of each.

    With A in [l, u], B in [l', u'] and d = A - B the limits are d - sqrt((A - l)^2 + (u' - B)^2) and
    d + sqrt((u - A)^2 + (B - l')^2) (Newcombe 1998, method 10; Zou and Donner 2008): the normal approximation, for
    intervals that need not be symmetric. p is the one at which the interval, stretched, would just reach 0.

    Parameters
    ----------
    a, b : Measure
        Of one metric. Without an interval in both there is neither interval nor p.
    why : str
        Why the two are not paired.
    """
    if a.value is None or b.value is None:
        return Contrast("unpaired", why=why)
    value = a.value - b.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Contrast("unpaired", value, why=why)
    down = math.hypot(a.value - a.low, b.high - b.value)
    up = math.hypot(a.high - a.value, b.value - b.low)
    towards_zero = down if value > 0 else up
    p = 2 * NormalDist().cdf(-_Z * abs(value) / towards_zero) if towards_zero > 0 else None
    return Contrast("unpaired", value, value - down, value + up, p, why=why)


def over_seeds(differences: Sequence[float], why: str = "") -> Contrast:
    """Mean of the differences of several seeds, with Student's t interval and, of three or more, the t test's p-value.

    Without interval and p-value where the differences are alike: they have no deviation to tell anything by.

    Parameters
    ----------
    differences : sequence of float
        A minus B, one a seed, at least two.
    why : str
        Where a seed's own difference is not one of the same images.
    """
    k = len(differences)
    mean = math.fsum(differences) / k
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (k - 1))
    if alike(mean, sd):
        return Contrast("seeds", mean, n=k, why=why)
    return Contrast("seeds", mean, *t_interval(mean, sd, k), t_test(mean, sd, k), k, why)
