"""Siamese term of the paper, section 3.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pdm_lightning.losses.base import Outputs, Term, weights_of


class Siamese(Term):
    """Pull the cosine of a pair's embeddings to 1 (same class) or 0 (different classes).

    ``|cos(z1, z2) - s|`` with s = 1 for a pair of one class and 0 otherwise, the mean over the B pairs.

    Parameters
    ----------
    norm
        "l1" as printed, or "l2" for the squared difference.
    layers
        Weight by layer ("embedding" or a submodule of the classifier, whose feature maps are averaged over their
        pixels): the term is their weighted sum. None: the embedding alone, as the paper has it.

    Raises
    ------
    ValueError
        If `norm` is neither, or `layers` are no weights.
    """

    needs_pairs: ClassVar[bool] = True

    def __init__(self, norm: str = "l1", layers: Mapping[str, float] | None = None) -> None:
        super().__init__()
        if norm not in ("l1", "l2"):
            raise ValueError(f"siamese norm {norm!r} is unknown: choose l1 or l2")
        self.norm = norm
        self.layers = weights_of(layers, "embedding")
        self.taps = tuple(name for name in self.layers if name != "embedding")

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
        values = [weight * self._of(out.layer(name), out.same) for name, weight in self.layers.items()]
        return torch.stack(values).sum()

    def _of(self, z: Tensor, same: Tensor) -> Tensor:
        """Of the outputs (2B, d) of one layer."""
        half = len(same)
        cosine = F.cosine_similarity(z[:half], z[half:], dim=1)
        gap = cosine - same.to(cosine.dtype)
        return gap.abs().mean() if self.norm == "l1" else gap.square().mean()

    def extra_repr(self) -> str:
        """Show the hyper-parameters."""
        return f"norm={self.norm!r}, layers={self.layers}"
