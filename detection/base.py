"""The contract of a detector, and the threshold that turns its scores into alarms."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from detection.features import Features, View


class Detector(ABC):
    """Scores inputs: the higher the score, the more adversarial the input looks.

    Class attributes
    ----------------
    needs_images : bool
        Whether `score` reads `view.x` or asks the classifier about other images; where False, features suffice.
    needs_attack : bool
        Whether `fit` needs adversarial features: what it learns, it learns for one attack.
    differentiable : bool
        Whether the score passes a gradient back to the view's embeddings, logits or images.
    """

    needs_images: ClassVar[bool] = False
    needs_attack: ClassVar[bool] = False
    differentiable: ClassVar[bool]

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the layers that `fit` and `score` read: "embedding", "logits", or those of submodules."""
        return ("embedding", "logits")

    @abstractmethod
    def fit(self, train: Features, validation: Features, adversarial: Features | None = None) -> Self:
        """Learn from features; returns self.

        Parameters
        ----------
        train, validation : Features
            Of clean images with their true labels.
        adversarial : Features, optional
            Of attacked training images with their true labels, failed attacks among them; given where `needs_attack`.
        """

    @abstractmethod
    def score(self, view: View) -> Tensor:
        """Score each row of the view: (N,) float64, higher = more adversarial."""

    def score_as(self, view: View, classes: Tensor) -> Tensor:
        """Score each row as if it were predicted to be the given class, (N,) int64.

        A detector whose score does not depend on the predicted class scores as ever.
        """
        return self.score(view)

    def leave_one_out_scores(self) -> list[Tensor]:
        """Per class the (M_c,) float64 scores of its training points, each left out of what scores it.

        Raises
        ------
        ValueError
            For a detector that cannot leave a point out.
        """
        raise ValueError(f"{type(self).__name__} has no leave-one-out scores: use craft.limits=validation")

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `fit` learnt, as tensors that safetensors can store."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> Self:
        """Take over a state of `state_dict`; returns self, as if fitted."""

    def threshold(self, validation_scores: Tensor, fpr: float) -> float:
        """Freeze the alarm threshold on clean validation scores: see `detection.base.threshold`."""
        return threshold(validation_scores, fpr)


def threshold(clean_scores: Tensor, fpr: float) -> float:
    """Find the smallest clean score that holds a false-positive rate.

    An input raises the alarm where its score is *strictly above* the threshold. Of n clean scores at most
    floor(fpr n) lie strictly above the returned value, ties included, so the realised rate never exceeds
    `fpr`.

    Parameters
    ----------
    clean_scores : Tensor
        (N,) finite scores of clean images that the detector was not fitted on, N >= 1.
    fpr : float
        The false-positive rate allowed, 0 <= fpr < 1.

    Returns
    -------
    float
        The threshold.

    Raises
    ------
    ValueError
        For a rate outside [0, 1), no scores, or scores that are not finite.
    """
    if not 0 <= fpr < 1:
        raise ValueError(f"the false-positive rate must lie in [0, 1), got {fpr}")
    scores = torch.as_tensor(clean_scores, dtype=torch.float64).flatten()
    if len(scores) == 0 or not torch.isfinite(scores).all():
        raise ValueError("the threshold needs at least one clean score, and finite ones only")
    # the small addend undoes rounding such as 0.29 * 100 = 28.999999999999996
    allowed = math.floor(fpr * len(scores) + 1e-9)
    return float(scores.sort(descending=True).values[allowed])
