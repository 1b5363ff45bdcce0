"""How well scores tell adversarial from clean images: AUC with its n and its bootstrap interval."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from detection.base import threshold
from detection.clusters import cluster_distance, cluster_variance, davies_bouldin
from detection.intervals import Interval, proportion

# the whole of what is reported about a model and its detector, in one place
__all__ = [
    "Interval",
    "all_auc",
    "auc",
    "bootstrap_auc",
    "cluster_distance",
    "cluster_variance",
    "davies_bouldin",
    "paired_auc",
    "proportion",
    "tpr_at_fpr",
]

MIN_PAIRS = 50
Scores: TypeAlias = Tensor | NDArray[np.float64]
# entries of one block of resampling counts: 2**21 float64 are 16 MiB
_BLOCK = 2**21


def auc(clean_scores: Scores, adv_scores: Scores) -> float:
    """Area under the ROC curve: P(adv > clean) + P(adv = clean) / 2.

    Parameters
    ----------
    clean_scores, adv_scores : Tensor or ndarray
        (N,) and (M,), finite, on any scale (log densities near -1000 included); higher = more adversarial.

    Returns
    -------
    float
        Within [0, 1].

    Raises
    ------
    ValueError
        For no scores on one side or scores that are not finite.
    """
    clean, adv = _scores(clean_scores, "clean"), _scores(adv_scores, "adversarial")
    truth = np.r_[np.zeros(len(clean)), np.ones(len(adv))]
    return float(roc_auc_score(truth, np.r_[clean, adv]))


def bootstrap_auc(
    clean_scores: Scores,
    adv_scores: Scores,
    *,
    paired: bool = False,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUC with its percentile bootstrap interval.

    Parameters
    ----------
    clean_scores, adv_scores : Tensor or ndarray
        As in `auc`.
    paired : bool
        Row i of both sides belongs to one image: whole pairs are drawn. Otherwise each side is drawn by
        itself (stratified).
    resamples, level, seed : int, float, int
        Number of resamples, confidence level, seed.

    Returns
    -------
    Interval
        n is the number of adversarial scores. Where the sides separate perfectly the interval is [1, 1].

    Raises
    ------
    ValueError
        As `auc`, or where paired sides differ in length.
    """
    clean, adv = _scores(clean_scores, "clean"), _scores(adv_scores, "adversarial")
    if paired and len(clean) != len(adv):
        raise ValueError(f"paired scores must be of one length, got {len(clean)} and {len(adv)}")
    values = _resampled_aucs(clean, adv, paired, resamples, np.random.default_rng(seed))
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(auc(clean, adv), float(low), float(high), len(adv))


def _resampled_aucs(
    clean: NDArray[np.float64],
    adv: NDArray[np.float64],
    paired: bool,
    resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """AUC of each resample, from how often each score was drawn instead of by sorting each resample.

    With the clean scores sorted and their counts summed up, the clean draws below and up to an adversarial
    score are two look-ups; their mean counts a tie as one half.
    """
    order = np.argsort(clean)
    below = np.searchsorted(clean[order], adv, side="left")
    up_to = np.searchsorted(clean[order], adv, side="right")
    rows = max(1, _BLOCK // max(len(clean), len(adv)))
    values = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = _counts(len(clean), size, rng)
        weights = drawn if paired else _counts(len(adv), size, rng)
        ranks = np.zeros((size, len(clean) + 1))
        np.cumsum(drawn[:, order], axis=1, out=ranks[:, 1:])
        wins = np.einsum("ij,ij->i", ranks[:, below], weights) + np.einsum(
            "ij,ij->i", ranks[:, up_to], weights
        )
        values.append(wins / (2 * len(clean) * len(adv)))
    return np.concatenate(values)


def _counts(n: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each of n items is drawn in each resample of size n: (resamples, n)."""
    draws = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def paired_auc(
    clean_scores: Scores,
    adv_scores: Scores,
    correct: Tensor,
    misclassified: Tensor,
    *,
    min_n: int = MIN_PAIRS,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """AUC over the images classified correctly whose adversarial version is misclassified (the default rule).

    Parameters
    ----------
    clean_scores, adv_scores : Tensor or ndarray
        (N,) scores of image i and of its adversarial version.
    correct, misclassified : Tensor
        (N,) bool: the clean image is classified correctly; its adversarial version is not.
    min_n : int
        Below so many pairs the value is None.
    resamples, seed : int
        Of the bootstrap, which draws whole pairs.

    Returns
    -------
    Interval
        n is the number of pairs.

    Raises
    ------
    ValueError
        For lengths that differ, masks that are not bool, or scores of the pairs that are not finite.
    """
    mask = _mask(correct, "correct") & _mask(misclassified, "misclassified")
    return _masked_auc(clean_scores, adv_scores, mask, min_n, resamples, seed)


def all_auc(
    clean_scores: Scores,
    adv_scores: Scores,
    correct: Tensor,
    *,
    min_n: int = MIN_PAIRS,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """AUC with failures kept: over every image classified correctly, whether its attack succeeded or not.

    Parameters, result and errors as in `paired_auc`.
    """
    return _masked_auc(clean_scores, adv_scores, _mask(correct, "correct"), min_n, resamples, seed)


def _masked_auc(
    clean: Scores, adv: Scores, mask: NDArray[np.bool_], min_n: int, resamples: int, seed: int
) -> Interval:
    clean_array, adv_array = _array(clean), _array(adv)
    if not len(clean_array) == len(adv_array) == len(mask):
        raise ValueError(
            "scores and masks must be of one length, "
            f"got {len(clean_array)}, {len(adv_array)} and {len(mask)}"
        )
    n = int(mask.sum())
    if n < max(min_n, 1):
        return Interval(None, None, None, n)
    return bootstrap_auc(clean_array[mask], adv_array[mask], paired=True, resamples=resamples, seed=seed)


def tpr_at_fpr(clean_scores: Scores, adv_scores: Scores, fpr: float) -> float:
    """Share of adversarial scores strictly above the threshold that holds `fpr` on the clean scores.

    See `detection.base.threshold`; ValueError as there and in `auc`.
    """
    clean, adv = _scores(clean_scores, "clean"), _scores(adv_scores, "adversarial")
    return float((adv > threshold(torch.from_numpy(clean), fpr)).mean())


def _array(values: Scores) -> NDArray[np.float64]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return array.astype(np.float64).ravel()


def _mask(values: Tensor, name: str) -> NDArray[np.bool_]:
    mask = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if mask.dtype != np.bool_:
        raise ValueError(f"{name} must be a bool mask, got {mask.dtype}")
    return mask.ravel()


def _scores(values: Scores, side: str) -> NDArray[np.float64]:
    array = _array(values)
    if len(array) == 0:
        raise ValueError(f"no {side} scores: an AUC needs at least one on each side")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(array)} {side} scores are not finite: check the model that gave them"
        )
    return array
