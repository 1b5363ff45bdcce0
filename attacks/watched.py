"""What an attacker holds who knows the detector as well as the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Look:
    """What one forward pass tells of n images; every tensor carries the gradient to them.

    Attributes
    ----------
    logits : Tensor
        (n, K) readout logits.
    scores : Tensor
        (n,) float64 scores of the detector: the higher, the more adversarial.
    embeddings : Tensor
        (n, d), the classifier's embedding.
    """

    logits: Tensor
    scores: Tensor
    embeddings: Tensor


@runtime_checkable
class Watched(Protocol):
    """A classifier with a detector behind it, in the hands of an attacker who knows both.

    Attributes
    ----------
    threshold : float
        The alarm that the attacker plans for: an image is flagged where its score lies strictly above.
    scale : float
        The unit of the scores, above 0: `threshold` minus the median score of clean images.
    references : Tensor
        (M, d) embeddings of clean training images that look typical of their class.
    reference_labels : Tensor
        (M,) int64, their classes.
    """

    threshold: float
    scale: float
    references: Tensor
    reference_labels: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """Readout logits (n, K) of images (n, C, H, W) in [0, 1]."""
        ...

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        """Logits, scores and embeddings in one pass.

        Parameters
        ----------
        x : Tensor
            (n, C, H, W) in [0, 1].
        classes : Tensor, optional
            (n,) int64: score each image as if it were taken for this class; default: the predicted one.
        """
        ...

    def limits(self, quantile: float) -> Tensor:
        """(K,) float64: per class, the score that the share `quantile` of its clean images does not exceed.

        ``limits(0.5)`` are the median scores: under a density detector, an image that scores below lies in a denser
        place than half of the clean images of the class.
        """
        ...


def require_watched(target: Any, attack: str) -> Watched:
    """Return the target itself, if it is `Watched`.

    Raises
    ------
    TypeError
        In one line, for a target without a detector.
    """
    if not isinstance(target, Watched):
        raise TypeError(
            f"{attack} works against a classifier and its detector, {type(target).__name__} is no "
            "attacks.Watched: give it look(x), limits(quantile), threshold, scale and references"
        )
    return target
