"""Average precision and the false-positive rate at a true-positive rate, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor

from detection.evaluate import MIN_PAIRS, Scores, _array, _mask, _scores
from detection.intervals import Interval

Statistic = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


def average_precision(clean_scores: Scores, adv_scores: Scores) -> float:
    """Area under the precision-recall curve, as the mean precision over the recalls; adversarial is positive.

    Parameters
    ----------
    clean_scores, adv_scores : Tensor or ndarray
        (N,) and (M,), finite; higher = more adversarial.

    Raises
    ------
    ValueError
        For no scores on one side or scores that are not finite.
    """
    clean, adv = _scores(clean_scores, "clean"), _scores(adv_scores, "adversarial")
    truth = np.r_[np.zeros(len(clean)), np.ones(len(adv))]
    return float(average_precision_score(truth, np.r_[clean, adv]))


def fpr_at_tpr(clean_scores: Scores, adv_scores: Scores, tpr: float = 0.95) -> float:
    """Share of clean scores at or above the highest threshold that flags a share `tpr` of the adversarial ones.

    Flagged is what scores at or above the threshold, which is an adversarial score. Parameters and errors as in
    `average_precision`; also ValueError for a rate outside (0, 1].
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"the true-positive rate must lie in (0, 1], got {tpr}")
    clean, adv = _scores(clean_scores, "clean"), _scores(adv_scores, "adversarial")
    # the small addend undoes rounding such as 0.95 * 20 = 19.000000000000004
    wanted = int(np.ceil(tpr * len(adv) - 1e-9))
    threshold = np.sort(adv)[::-1][wanted - 1]
    return float((clean >= threshold).mean())


def paired_rate(
    statistic: Statistic,
    clean_scores: Scores,
    adv_scores: Scores,
    kept: Tensor,
    *,
    min_n: int = MIN_PAIRS,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic over pairs of clean and adversarial scores, with its percentile bootstrap interval.

    Whole pairs are drawn, so that every resample has as many of either side.

    Parameters
    ----------
    statistic : callable
        `average_precision`, `fpr_at_tpr` or the like.
    clean_scores, adv_scores : Tensor or ndarray
        (N,) scores of image i and of its adversarial version.
    kept : Tensor
        (N,) bool: the pairs that count.
    min_n : int
        Below so many pairs the value is None.
    resamples, level, seed : int, float, int
        Number of resamples, confidence level, seed.

    Raises
    ------
    ValueError
        For lengths that differ, a mask that is not bool, or scores that are not finite.
    """
    clean, adv, mask = _array(clean_scores), _array(adv_scores), _mask(kept, "kept")
    if not len(clean) == len(adv) == len(mask):
        raise ValueError(f"one length needed, got {len(clean)}, {len(adv)} and {len(mask)}")
    clean, adv, n = clean[mask], adv[mask], int(mask.sum())
    if n < max(min_n, 1):
        return Interval(None, None, None, n)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        rows = rng.integers(0, n, n)
        values.append(statistic(clean[rows], adv[rows]))
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(statistic(clean, adv), float(low), float(high), n)
