"""Siamese term of the paper, section 3.2."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from pdm_lightning.losses.base import Outputs, Term


class Siamese(Term):
    """Pull the cosine of a pair's embeddings to 1 (same class) or 0 (different classes).

    ``|cos(z1, z2) - s|`` with s = 1 for a pair of one class and 0 otherwise, the mean over the B pairs.

    Parameters
    ----------
    norm
        "l1" as printed, or "l2" for the squared difference.

    Raises
    ------
    ValueError
        If `norm` is neither.
    """

    needs_pairs: ClassVar[bool] = True

    def __init__(self, norm: str = "l1") -> None:
        super().__init__()
        if norm not in ("l1", "l2"):
            raise ValueError(f"siamese norm {norm!r} is unknown: choose l1 or l2")
        self.norm = norm

    def forward(self, out: Outputs) -> Tensor:
        """Compute the term, a scalar >= 0.

        Raises
        ------
        ValueError
            If the batch holds single images.
        """
        if out.same is None:
            raise ValueError(
                "the siamese term needs pairs, the batch holds single images: set defense.pairs=auto"
            )
        half = len(out.same)
        cosine = F.cosine_similarity(out.embeddings[:half], out.embeddings[half:], dim=1)
        gap = cosine - out.same.to(cosine.dtype)
        return gap.abs().mean() if self.norm == "l1" else gap.square().mean()

    def extra_repr(self) -> str:
        """Show the hyper-parameters."""
        return f"norm={self.norm!r}"
