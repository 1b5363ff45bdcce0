"""Two models or two detectors on the same images: how much they differ, and whether that may be chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import binomtest
from torch import Tensor

from detection.evaluate import Scores, auc, mask_of, sides
from detection.resampling import Array, percentiles, resampled, weighted_auc


@dataclass(frozen=True)
class Difference:
    """A minus B with its confidence limits, the two-sided p-value of no difference, and n, the images.

    All but n are None where there are too few images to say anything.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


def paired_difference(
    clean_a: Scores,
    adv_a: Scores,
    clean_b: Scores,
    adv_b: Scores,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """AUC of A minus AUC of B on the same images.

    Whole images are drawn, and each resample is the same for A and for B: what makes an image hard for both cancels.

    Parameters
    ----------
    clean_a, adv_a, clean_b, adv_b : Tensor or ndarray
        (N,) finite scores of image i and of its adversarial version, by A and by B, each on its own scale.
    resamples, level, seed : int, float, int
        Of the bootstrap.

    Returns
    -------
    Difference
        The percentile interval, and p = 2 min(P(d <= 0), P(d >= 0)) over the resamples, at most 1, where both shares
        are counted as (1 + hits) / (1 + resamples) (Davison and Hinkley 1997): never below 2 / (1 + resamples).

    Raises
    ------
    ValueError
        For lengths that differ, no scores, or scores that are not finite.
    """
    first, second = sides(clean_a, adv_a, paired=True), sides(clean_b, adv_b, paired=True)
    n = len(first[0])
    if len(second[0]) != n:
        raise ValueError(f"both need scores of the same images, got {n} and {len(second[0])}")
    a, b = weighted_auc(*first), weighted_auc(*second)
    rng = np.random.default_rng(seed)
    values = resampled(lambda drawn, same: a(drawn, same) - b(drawn, same), n, n, True, resamples, rng)
    value = auc(*first) - auc(*second)
    return Difference(value, *percentiles(values, level), _p_value(values), n)


def _p_value(values: Array) -> float:
    # equal AUCs differ by rounding alone
    below, above = int((values <= 1e-12).sum()), int((values >= -1e-12).sum())
    return min(1.0, 2 * (1 + min(below, above)) / (1 + len(values)))


def mcnemar(hits_a: Tensor, hits_b: Tensor) -> float:
    """Two-sided exact p-value of McNemar's test: do A and B succeed equally often on the same images?

    Of the images on which they disagree, A succeeds alone on a binomial number with probability 1/2 where there is no
    difference (McNemar 1947).

    Parameters
    ----------
    hits_a, hits_b : Tensor
        (N,) bool, row i of both belongs to one image.

    Returns
    -------
    float
        In (0, 1]; 1 where they never disagree.

    Raises
    ------
    ValueError
        For lengths that differ or hits that are not bool.
    """
    only_a, only_b, _ = _disagreements(hits_a, hits_b)
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_proportions(hits_a: Tensor, hits_b: Tensor, *, level: float = 0.95) -> Difference:
    """Share of A's successes minus share of B's on the same images, with McNemar's exact p-value.

    The interval is the adjusted Wald interval of Bonett and Price (2012): with b and c images on which A and B alone
    succeed, p1 = (b + 1) / (n + 2), p2 = (c + 1) / (n + 2) and the limits
    p1 - p2 -+ z sqrt((p1 + p2 - (p1 - p2)^2) / (n + 2)), held to [-1, 1].

    Parameters and errors as in `mcnemar`; without images there is no value.
    """
    only_a, only_b, n = _disagreements(hits_a, hits_b)
    if n == 0:
        return Difference(None, None, None, None, 0)
    first, second = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    gap, z = first - second, NormalDist().inv_cdf(0.5 + level / 2)
    half = z * math.sqrt((first + second - gap * gap) / (n + 2))
    low, high = max(-1.0, gap - half), min(1.0, gap + half)
    return Difference((only_a - only_b) / n, low, high, mcnemar(hits_a, hits_b), n)


def _disagreements(hits_a: Tensor, hits_b: Tensor) -> tuple[int, int, int]:
    """Images on which A alone, and B alone, succeeds, and all images."""
    a, b = mask_of(hits_a, "hits of A"), mask_of(hits_b, "hits of B")
    if len(a) != len(b):
        raise ValueError(f"both need hits on the same images, got {len(a)} and {len(b)}")
    return int((a & ~b).sum()), int((b & ~a).sum()), len(a)
