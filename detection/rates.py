"""Rates beside the AUC: average precision, false positives at a true-positive rate, and accuracy at a threshold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from detection.evaluate import MIN_PAIRS, Scores, mask_of, masked, sides
from detection.intervals import Interval, wilson
from detection.joint import joint_hits
from detection.resampling import Bootstrap, weighted_fpr, weighted_precision


def average_precision(clean_scores: Scores, adv_scores: Scores) -> float:
    """Area under the precision-recall curve, as the mean precision over the recalls; adversarial is positive.

    Parameters
    ----------
    clean_scores, adv_scores : Tensor or ndarray
        (N,) and (M,), finite; higher = more adversarial.

    Returns
    -------
    float
        Within (0, 1]. What scores by chance have depends on the mix: M / (N + M), one half of pairs.

    Raises
    ------
    ValueError
        For no scores on one side or scores that are not finite.
    """
    clean, adv = sides(clean_scores, adv_scores)
    truth = np.r_[np.zeros(len(clean)), np.ones(len(adv))]
    return float(average_precision_score(truth, np.r_[clean, adv]))


def bootstrap_average_precision(
    clean_scores: Scores,
    adv_scores: Scores,
    *,
    paired: bool = False,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`average_precision` with its percentile bootstrap interval; all else as in `detection.bootstrap_auc`."""
    clean, adv = sides(clean_scores, adv_scores, paired=paired)
    draw = Bootstrap(paired, resamples, level, seed)
    return draw.interval(average_precision(clean, adv), weighted_precision(clean, adv), len(clean), len(adv))


def fpr_at_tpr(clean_scores: Scores, adv_scores: Scores, tpr: float = 0.95) -> float:
    """Share of clean scores at or above the highest threshold that flags a share `tpr` of the adversarial ones.

    Flagged is what scores at or above the threshold, which is an adversarial score. Parameters and errors as in
    `average_precision`; also ValueError for a rate outside (0, 1].
    """
    clean, adv = sides(clean_scores, adv_scores)
    threshold = np.sort(adv)[::-1][_wanted(tpr, len(adv)) - 1]
    return float((clean >= threshold).mean())


def bootstrap_fpr_at_tpr(
    clean_scores: Scores,
    adv_scores: Scores,
    tpr: float = 0.95,
    *,
    paired: bool = False,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`fpr_at_tpr` with its percentile bootstrap interval; all else as in `detection.bootstrap_auc`.

    The threshold is found anew in each resample.
    """
    clean, adv = sides(clean_scores, adv_scores, paired=paired)
    statistic = weighted_fpr(clean, adv, _wanted(tpr, len(adv)))
    draw = Bootstrap(paired, resamples, level, seed)
    return draw.interval(fpr_at_tpr(clean, adv, tpr), statistic, len(clean), len(adv))


def paired_rate(
    bootstrap: Callable[..., Interval],
    clean_scores: Scores,
    adv_scores: Scores,
    kept: Tensor,
    *,
    min_n: int = MIN_PAIRS,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """A rate over the pairs that count, which are drawn whole.

    Parameters
    ----------
    bootstrap : callable
        `bootstrap_average_precision`, `bootstrap_fpr_at_tpr` or `detection.bootstrap_auc`.
    clean_scores, adv_scores : Tensor or ndarray
        (N,) scores of image i and of its adversarial version.
    kept : Tensor
        (N,) bool: the pairs that count.
    min_n : int
        Below so many pairs the value is None.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    Interval
        n is the number of pairs that count.

    Raises
    ------
    ValueError
        For lengths that differ, a mask that is not bool, or scores of the pairs that are not finite.
    """
    return masked(bootstrap, clean_scores, adv_scores, mask_of(kept, "kept"), min_n, resamples, seed)


def detection_accuracy(clean_scores: Tensor, adv_scores: Tensor, threshold: float | None) -> Interval:
    """Share of right decisions over both versions of each image: the clean one unflagged, the adversarial flagged.

    Parameters
    ----------
    clean_scores, adv_scores : Tensor
        (N,) scores of image i and of its adversarial version; infinite ones are compared as they are.
    threshold : float or None
        Flagged is what scores strictly above it. With None there is no value.

    Returns
    -------
    Interval
        n counts the images, each with two decisions. The limits are Wilson's at the effective number of decisions,
        see `joint_accuracy`.

    Raises
    ------
    ValueError
        For lengths that differ or scores that are NaN.
    """
    return joint_accuracy(
        clean_scores, torch.ones(len(adv_scores), dtype=torch.bool), adv_scores, threshold, len(adv_scores)
    )


def joint_accuracy(
    clean_scores: Tensor, fooled: Tensor, adv_scores: Tensor, threshold: float | None, candidates: int
) -> Interval:
    """Share of right outcomes over the clean and the adversarial versions of all images tried.

    A clean version is right where it is classified correctly and not flagged, an adversarial one where it is flagged
    or classified correctly. An image that is misclassified without any attack is wrong in both versions, as it is
    in `detection.joint.robust_accuracy`, which asks for both versions of an image to be right; so that is never more.

    Parameters
    ----------
    clean_scores, fooled, adv_scores, threshold, candidates
        As in `detection.joint.robust_accuracy`.

    Returns
    -------
    Interval
        n is `candidates`. The two outcomes of an image depend on each other, so the limits are Wilson's at the
        effective number of outcomes n p (1 - p) / s^2, held to [n, 2 n], where s^2 is the variance of an image's
        mean outcome (Korn and Graubard 1998, for samples in clusters).

    Raises
    ------
    ValueError
        As in `detection.joint.robust_accuracy`.
    """
    if not len(clean_scores) == len(adv_scores) == len(fooled) <= candidates:
        raise ValueError(
            f"needs one clean and one adversarial score per image and as many candidates, got {len(clean_scores)}, "
            f"{len(adv_scores)} and {candidates} for {len(fooled)} images"
        )
    silent = joint_hits(torch.ones_like(fooled), clean_scores, torch.inf if threshold is None else threshold)
    hits = joint_hits(fooled, adv_scores, torch.inf if threshold is None else threshold)
    if threshold is None or candidates == 0:
        return Interval(None, None, None, candidates)
    return _outcomes(int((silent & ~hits).sum()), int((silent ^ ~hits).sum()), candidates)


def _outcomes(both: int, one: int, n: int) -> Interval:
    """Mean over n images of which so many are right in both and in one of their versions; see `joint_accuracy`."""
    p = (2 * both + one) / (2 * n)
    variance = (both + one / 4) / n - p * p
    effective = min(2.0 * n, n * p * (1 - p) / variance) if variance > 1e-12 else n * (2.0 if one else 1.0)
    return Interval(p, *wilson(p, max(float(n), effective)), n)


def _wanted(tpr: float, n: int) -> int:
    """How many of n adversarial scores a share `tpr` is."""
    if not 0 < tpr <= 1:
        raise ValueError(f"the true-positive rate must lie in (0, 1], got {tpr}")
    # the small addend undoes rounding such as 0.95 * 20 = 19.000000000000004
    return max(1, int(np.ceil(tpr * n - 1e-9)))
