"""Means, ratios of means and rank correlations over images, each with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from detection.intervals import Interval
from detection.resampling import percentiles

Array: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Tensor | Array
# entries of one block of draws: 2**21 int64 are 16 MiB
_BLOCK = 2**21


def mean_interval(values: Values, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean with its 95 % percentile bootstrap interval.

    Parameters
    ----------
    values : Tensor or ndarray
        (N,) finite.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    Interval
        Without limits for a single value, whose resamples are all alike; without a value for none.

    Raises
    ------
    ValueError
        For values that are not (N,) or not finite.
    """
    (drawn,) = _columns(values)
    return _bootstrap(lambda rows: drawn[rows].mean(axis=1), len(drawn), resamples, seed)


def ratio_interval(above: Values, below: Values, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """mean(above) / mean(below) of values that belong to the same images, which are drawn together.

    Parameters
    ----------
    above, below : Tensor or ndarray
        (N,) finite; `below` >= 0.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    Interval
        As `mean_interval`; without a value where `below` is 0 throughout. A limit may be infinite.

    Raises
    ------
    ValueError
        As `mean_interval`, or where the lengths differ.
    """
    top, bottom = _columns(above, below)
    if not bottom.any():
        return Interval(None, None, None, len(top))

    def ratios(rows: NDArray[np.int64]) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Array = top[rows].mean(axis=1) / bottom[rows].mean(axis=1)
        return np.where(np.isnan(found), np.inf, found)

    return _bootstrap(ratios, len(top), resamples, seed)


def rank_correlation(a: Values, b: Values, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Spearman's rank correlation of two values of the same images, ties at their mean rank.

    Parameters
    ----------
    a, b : Tensor or ndarray
        (N,) finite.
    resamples, seed : int
        Of the bootstrap, which draws images; a draw in which one side is constant counts as 0.

    Returns
    -------
    Interval
        Within [-1, 1]; without a value for fewer than three images, or where one side is constant.

    Raises
    ------
    ValueError
        As in `ratio_interval`.
    """
    from scipy.stats import rankdata  # a second that planning a study need not wait

    left, right = _columns(a, b)
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return Interval(None, None, None, len(left))

    def correlations(rows: NDArray[np.int64]) -> Array:
        x, y = (rankdata(side[rows], axis=1) - (rows.shape[1] + 1) / 2 for side in (left, right))
        scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
        return np.divide((x * y).sum(axis=1), scale, out=np.zeros(len(rows)), where=scale > 0)

    return _bootstrap(correlations, len(left), resamples, seed)


def _bootstrap(
    statistic: Callable[[NDArray[np.int64]], Array], n: int, resamples: int, seed: int
) -> Interval:
    """A statistic of rows, given as (resamples, n) numbers of rows, with its percentile interval."""
    if n == 0:
        return Interval(None, None, None, 0)
    value = float(statistic(np.arange(n)[None])[0])
    if n == 1:
        return Interval(value, None, None, 1)
    rng, size, found = np.random.default_rng(seed), max(1, _BLOCK // n), []
    for start in range(0, resamples, size):
        found.append(statistic(rng.integers(0, n, (min(size, resamples - start), n))))
    return Interval(value, *percentiles(np.concatenate(found), 0.95), n)


def _columns(*values: Values) -> list[Array]:
    found = [
        (v.detach().cpu().numpy() if isinstance(v, Tensor) else np.asarray(v)).astype(np.float64)
        for v in values
    ]
    if any(column.shape != (len(found[0]),) for column in found):
        shapes = " and ".join(str(column.shape) for column in found)
        raise ValueError(f"one number an image needed, of as many images on each side: got {shapes}")
    if not all(np.isfinite(column).all() for column in found):
        raise ValueError("values that are not finite have no mean: leave them out, and say so")
    return found
