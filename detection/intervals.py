"""A measured value with its uncertainty and the number of samples behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Interval:
    """A value, its confidence limits, and n, the samples (or pairs) it rests on.

    value, low and high are None where n is too small to say anything: such a cell reads "n/a (n=12)".
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def proportion(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a binomial proportion.

    centre = (p + z^2/2n) / (1 + z^2/n),  half width = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)

    Parameters
    ----------
    successes, n : int
        0 <= successes <= n. With n = 0 the value is None.
    level : float
        Confidence level in (0, 1).

    Returns
    -------
    Interval
        p = successes / n and its limits, all within [0, 1].

    Raises
    ------
    ValueError
        For counts or a level outside these ranges.
    """
    if not 0 <= successes <= n or not 0 < level < 1:
        raise ValueError(
            f"need 0 <= successes <= n and 0 < level < 1, got successes={successes}, n={n}, level={level}"
        )
    if n == 0:
        return Interval(None, None, None, 0)
    low, high = wilson(successes / n, n, level)
    return Interval(successes / n, low, high, n)


def wilson(p: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Limits of `proportion` for a share p in [0, 1] of n > 0 samples, which need not be a whole number."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    shrink = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    # the limits reach p itself at 0 and 1; rounding must not push them past it
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))
