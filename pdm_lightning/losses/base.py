"""What a loss term sees, and what it has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn


@dataclass
class Outputs:
    """A classifier's outputs on a batch of B single images or of B pairs.

    A batch of pairs holds the first images of all pairs in its first half, the second images in its second.

    Parameters
    ----------
    embeddings
        (B or 2B, d) pre-logits z.
    logits
        (B or 2B, K) raw logits o (not the readout).
    labels
        (B or 2B,) int64 classes.
    same
        (B,) bool, true where the two images of a pair are of one class; None for single images.
    teacher
        (B or 2B, K) readout logits of the classifier that is distilled, on the same images; None without one.

    Raises
    ------
    ValueError
        If the numbers of rows disagree, or the teacher knows other classes.
    """

    embeddings: Tensor
    logits: Tensor
    labels: Tensor
    same: Tensor | None = None
    teacher: Tensor | None = None

    def __post_init__(self) -> None:
        rows = len(self.labels)
        if len(self.embeddings) != rows or len(self.logits) != rows:
            raise ValueError(
                f"embeddings, logits and labels have {len(self.embeddings)}, {len(self.logits)} and {rows} "
                "rows: give one row an image"
            )
        if self.same is not None and 2 * len(self.same) != rows:
            raise ValueError(
                f"{len(self.same)} pairs need {2 * len(self.same)} images, got {rows}: "
                "put the first images of all pairs before the second images"
            )
        if self.teacher is not None and self.teacher.shape != self.logits.shape:
            raise ValueError(
                f"the teacher's logits are {tuple(self.teacher.shape)}, the classifier's "
                f"{tuple(self.logits.shape)}: both need the same images and classes"
            )

    @property
    def paired(self) -> bool:
        """Whether the batch consists of pairs."""
        return self.same is not None

    def branches(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Give (embeddings, logits, labels) of each branch: one of single images, two of pairs."""
        if self.same is None:
            return [(self.embeddings, self.logits, self.labels)]
        half = len(self.same)
        first, second = slice(None, half), slice(half, None)
        return [(self.embeddings[part], self.logits[part], self.labels[part]) for part in (first, second)]


class Term(nn.Module, ABC):
    """One term of a loss: a scalar of :class:`Outputs`.

    A term with ``needs_pairs`` asks the data module for pairs of images. A term that trains the logits names
    the ``readout`` that it trains, "direct" or "reverse"; None fits both.
    """

    needs_pairs: ClassVar[bool] = False
    readout: ClassVar[str | None] = None

    def floor(self, num_classes: int) -> float:
        """Smallest value of the term on one branch; the excess over it is logged where it is not 0."""
        return 0.0

    @abstractmethod
    def forward(self, out: Outputs) -> Tensor:
        """Compute the unweighted term, a scalar."""
