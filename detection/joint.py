"""Classifier and detector judged together: misclassified *and* unflagged, at a threshold frozen beforehand.

An image is flagged where its score lies strictly above the threshold, as in `detection.base.threshold`. Where there
is no threshold (None: too few clean images to hold its rate), a result has no value either.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detection.base import threshold as alarm_threshold
from detection.intervals import Interval, proportion

MIN_ALARMS = 10
"""False alarms that the clean scores must allow, below which the rate that a threshold holds is mere chance."""


def frozen_threshold(validation_scores: Tensor, fpr: float) -> float | None:
    """Find the alarm threshold that holds a false-positive rate, where there are images enough to know it.

    Parameters
    ----------
    validation_scores : Tensor
        (N,) finite scores of clean images held out of the training of classifier and detector.
    fpr : float
        The false-positive rate allowed, 0 <= fpr < 1.

    Returns
    -------
    float or None
        See `detection.base.threshold`; None where N < 10 / fpr (1,000 images at 1 %, 200 at 5 %).

    Raises
    ------
    ValueError
        For a rate outside [0, 1), or scores that are not finite.
    """
    # the small addend undoes rounding such as 77 * (10 / 77) = 9.999999999999998; a wrong rate falls through
    if 0 <= fpr < 1 and len(validation_scores) * fpr + 1e-9 < MIN_ALARMS:
        return None
    return alarm_threshold(validation_scores, fpr)


def joint_hits(fooled: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Which adversarial images are misclassified and not flagged: (N,) bool.

    Parameters
    ----------
    fooled : Tensor
        (N,) bool: the adversarial image is misclassified.
    scores : Tensor
        (N,) scores of the adversarial images; infinite ones are compared as they are.
    threshold : float
        The alarm threshold.

    Raises
    ------
    ValueError
        For lengths that differ, a mask that is not bool, or scores that are NaN.
    """
    _check(fooled, scores)
    return fooled & (scores <= threshold)


def joint_success(fooled: Tensor, scores: Tensor, threshold: float | None) -> Interval:
    """Share of the attacked images whose adversarial version is misclassified and not flagged.

    Parameters and errors as in `joint_hits`; n counts the attacked images.
    """
    _check(fooled, scores)
    if threshold is None:
        return Interval(None, None, None, len(fooled))
    return proportion(int(joint_hits(fooled, scores, threshold).sum()), len(fooled))


def detected(fooled: Tensor, scores: Tensor, threshold: float | None) -> Interval:
    """Share of the misclassified adversarial images that are flagged: the detector's true-positive rate.

    Parameters and errors as in `joint_hits`; n counts the misclassified.
    """
    _check(fooled, scores)
    n = int(fooled.sum())
    if threshold is None:
        return Interval(None, None, None, n)
    return proportion(int((fooled & (scores > threshold)).sum()), n)


def robust_accuracy(
    clean_scores: Tensor, fooled: Tensor, scores: Tensor, threshold: float | None, candidates: int
) -> Interval:
    """Robust accuracy with rejection.

    The share of all images tried whose clean version is classified correctly and not flagged, and whose adversarial
    version is flagged or classified correctly.

    Parameters
    ----------
    clean_scores : Tensor
        (N,) scores of the clean versions of the attacked images, all of them classified correctly.
    fooled, scores, threshold : Tensor, Tensor, float or None
        As in `joint_hits`, of the adversarial versions.
    candidates : int
        >= N: all images tried, those among them that are misclassified without any attack.

    Returns
    -------
    Interval
        n is `candidates`.

    Raises
    ------
    ValueError
        As in `joint_hits`, or for fewer candidates than attacked images.
    """
    _check(fooled, scores)
    _check(fooled, clean_scores)
    if candidates < len(fooled):
        raise ValueError(
            f"{len(fooled)} images were attacked out of {candidates} candidates: count all images tried"
        )
    if threshold is None:
        return Interval(None, None, None, candidates)
    kept = (clean_scores <= threshold) & ~joint_hits(fooled, scores, threshold)
    return proportion(int(kept.sum()), candidates)


def worst_case(indices: Sequence[Tensor], hits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Give each image the attack that does it the most harm.

    Parameters
    ----------
    indices : sequence of Tensor
        Per attack the (N_a,) int64 images it attacked, none of them twice, in any order.
    hits : sequence of Tensor
        Per attack (N_a,) bool, in the order of its index: did it succeed?

    Returns
    -------
    tuple of Tensor
        The (N,) images that *all* of the attacks attacked, ascending, and (N,) bool: did any of them succeed?

    Raises
    ------
    ValueError
        Without an attack, for lengths that differ, an image listed twice or hits that are not bool.
    """
    if not indices or len(indices) != len(hits):
        raise ValueError(f"need one index and one set of hits per attack, got {len(indices)} and {len(hits)}")
    for index, hit in zip(indices, hits, strict=True):
        _check(hit, index)
        if len(index.unique()) != len(index):
            raise ValueError("an attack lists the same image twice: keep one row for each image")
    common = indices[0].sort().values
    for index in indices[1:]:
        common = common[torch.isin(common, index)]
    union = torch.zeros_like(common, dtype=torch.bool)
    for index, hit in zip(indices, hits, strict=True):
        union |= torch.isin(common, index[hit])
    return common, union


def _check(mask: Tensor, values: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"needs a bool mask of the images, got {mask.dtype}")
    if mask.dim() != 1 or values.shape != mask.shape:
        raise ValueError(f"needs one value per image, got {tuple(values.shape)} and {tuple(mask.shape)}")
    if values.is_floating_point() and values.isnan().any():
        raise ValueError(
            f"{int(values.isnan().sum())} of {len(values)} scores are NaN: check the model that gave them"
        )
