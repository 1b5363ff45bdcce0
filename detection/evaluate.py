"""How well scores tell adversarial from clean images: AUC with its n and its bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.base import threshold
from detection.clusters import cluster_distance, cluster_variance, davies_bouldin
from detection.intervals import Interval, proportion
from detection.resampling import Bootstrap, weighted_auc

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
    clean, adv = sides(clean_scores, adv_scores)
    truth = np.r_[np.zeros(len(clean)), np.ones(len(adv))]
    from sklearn.metrics import roc_auc_score  # a second that planning a study need not wait

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
    clean, adv = sides(clean_scores, adv_scores, paired=paired)
    draw = Bootstrap(paired, resamples, level, seed)
    return draw.interval(auc(clean, adv), weighted_auc(clean, adv), len(clean), len(adv))


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
    mask = mask_of(correct, "correct") & mask_of(misclassified, "misclassified")
    return masked(bootstrap_auc, clean_scores, adv_scores, mask, min_n, resamples, seed)


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
    mask = mask_of(correct, "correct")
    return masked(bootstrap_auc, clean_scores, adv_scores, mask, min_n, resamples, seed)


def masked(
    bootstrap: Callable[..., Interval],
    clean: Scores,
    adv: Scores,
    mask: NDArray[np.bool_],
    min_n: int,
    resamples: int,
    seed: int,
) -> Interval:
    """What `bootstrap` (`bootstrap_auc` or the like) says of the masked pairs; no value below `min_n` of them.

    Errors as in `paired_auc`.
    """
    clean_array, adv_array = _array(clean), _array(adv)
    if not len(clean_array) == len(adv_array) == len(mask):
        raise ValueError(
            "scores and masks must be of one length, "
            f"got {len(clean_array)}, {len(adv_array)} and {len(mask)}"
        )
    n = int(mask.sum())
    if n < max(min_n, 1):
        return Interval(None, None, None, n)
    return bootstrap(clean_array[mask], adv_array[mask], paired=True, resamples=resamples, seed=seed)


def tpr_at_fpr(clean_scores: Scores, adv_scores: Scores, fpr: float) -> float:
    """Share of adversarial scores strictly above the threshold that holds `fpr` on the clean scores.

    See `detection.base.threshold`; ValueError as there and in `auc`.
    """
    clean, adv = sides(clean_scores, adv_scores)
    return float((adv > threshold(torch.from_numpy(clean), fpr)).mean())


def _array(values: Scores) -> NDArray[np.float64]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return array.astype(np.float64).ravel()


def mask_of(values: Tensor, name: str) -> NDArray[np.bool_]:
    """The values as an array of bool; ValueError, which calls them `name`, where they are none."""
    mask = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if mask.dtype != np.bool_:
        raise ValueError(f"{name} must be a bool mask, got {mask.dtype}")
    return mask.ravel()


def sides(
    clean: Scores, adv: Scores, *, paired: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sides as float64 arrays; errors as in `bootstrap_auc`."""
    left, right = _scores(clean, "clean"), _scores(adv, "adversarial")
    if paired and len(left) != len(right):
        raise ValueError(f"paired scores must be of one length, got {len(left)} and {len(right)}")
    return left, right


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
