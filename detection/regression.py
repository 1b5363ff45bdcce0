"""Logistic regression over the scores of layers, for detectors that are fitted on one attack."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from detection.features import Features

MIN_FOOLED = 10
"""Successful adversarial images below which a regression would learn chance."""


def examples(train: Features, adversarial: Features | None, who: str) -> tuple[Tensor, Tensor]:
    """Choose what a regression learns from.

    Negatives are clean training images that are classified correctly: validation images stay untouched, for the
    threshold. Positives are adversarial images that are misclassified.

    Returns
    -------
    tuple of Tensor
        Row numbers of the negatives in `train`, of the positives in `adversarial`.

    Raises
    ------
    ValueError
        Without adversarial features, or with fewer than `MIN_FOOLED` rows on either side.
    """
    if adversarial is None:
        raise ValueError(
            f"{who} is fitted on an attack: give adversarial features, e.g. detector.attack=bim_010"
        )
    right = (train.predicted == train.labels).nonzero().flatten()
    fooled = (adversarial.predicted != adversarial.labels).nonzero().flatten()
    if len(fooled) < MIN_FOOLED:
        raise ValueError(
            f"{who}: the attack fools the classifier on {len(fooled)} of {len(adversarial)} training images, "
            f"{MIN_FOOLED} needed: fit on a stronger attack or on more images"
        )
    if len(right) < MIN_FOOLED:
        raise ValueError(
            f"{who}: the classifier is right on {len(right)} of {len(train)} training images, "
            f"{MIN_FOOLED} needed: train it longer"
        )
    return right, fooled


def logistic(negatives: Tensor, positives: Tensor) -> dict[str, Tensor]:
    """Fit a logistic regression: L2 penalty of 1 on standardised scores, both sides of equal weight.

    Parameters
    ----------
    negatives, positives : Tensor
        (N, L) and (M, L) float64 scores of clean and of adversarial images.

    Returns
    -------
    dict of str to Tensor
        "weights" (L,) and "bias" (1,) float64, for scores that are *not* standardised: `weighted`.
    """
    both = torch.cat([negatives.detach().cpu(), positives.detach().cpu()])
    mean, spread = both.mean(dim=0), both.std(dim=0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))  # a constant score tells nothing
    truth = [0] * len(negatives) + [1] * len(positives)
    fitted = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000).fit(
        ((both - mean) / spread).numpy(), truth
    )
    weights = torch.from_numpy(fitted.coef_[0]).double() / spread
    return {"weights": weights, "bias": float(fitted.intercept_[0]) - (weights @ mean).reshape(1)}


def weighted(scores: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Log odds of being adversarial, (N,) of scores (N, L): unlike the probability they do not saturate."""
    # a sum a row instead of a product of matrices, whose rounding depends on the rows beside it
    return (scores * weights).sum(dim=1) + bias
