"""Logistic regression over the scores of layers, for detectors that are fitted on one attack."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detection.features import Features

MIN_FOOLED = 10
"""Successful adversarial images below which a regression would learn chance."""


def regress(
    who: str,
    train: Features,
    adversarial: Features | None,
    of_layers: Callable[[Features], dict[str, Tensor]],
    per_layer: Callable[[Features, dict[str, Tensor]], Tensor],
) -> dict[str, Tensor]:
    """Learn what a detector has to know of each layer, and then how much each counts against one attack.

    Parameters
    ----------
    who : str
        The detector, for errors.
    train, adversarial : Features
        As in `examples`.
    of_layers : callable
        What is learnt of the layers of `train`.
    per_layer : callable
        Features, and that on their device, to scores (N, L) float64.

    Returns
    -------
    dict of str to Tensor
        That, with "weights" and "bias" of `logistic`, all where `train` is.

    Raises
    ------
    ValueError
        As in `examples`, or as the two callables raise.
    """
    right, fooled = examples(train, adversarial, who)
    assert adversarial is not None
    learnt = of_layers(train)
    there = {name: value.to(adversarial.logits.device) for name, value in learnt.items()}
    near, far = per_layer(train, learnt)[right], per_layer(adversarial, there)[fooled]
    return learnt | {name: value.to(near.device) for name, value in logistic(near, far).items()}


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
    from sklearn.linear_model import LogisticRegression  # a second that planning a study need not wait

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
