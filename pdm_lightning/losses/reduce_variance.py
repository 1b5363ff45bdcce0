"""Reduce-variance loss (RVL), equation 5 of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pdm_lightning.losses.base import Outputs, Term, root, weights_of


class ReduceVariance(Term):
    """Mean distance of a class's embeddings to their mean in the batch, then the mean or sum over classes.

    ``sum_c 1/N_c sum_{i in c} ||z_i - mu_c||``, divided by the number of classes in the batch for the mean.
    The embeddings of both branches of a pair are pooled. Classes that the batch does not hold are skipped; a
    class with one sample contributes 0 with a gradient of 0.

    Parameters
    ----------
    squared
        Take the squared distance (a variance), or the distance as equation 5 prints it.
    reduction
        Over classes: "mean" (equation 5's text) or "sum" (Algorithm 1).
    normalize
        Scale each embedding to length 1 first, which makes the term blind to the embedding's scale.
    layers
        Weight by layer ("embedding" or a submodule of the classifier, whose feature maps are averaged over their
        pixels): the term is their weighted sum. None: the embedding alone, as the paper has it.

    Raises
    ------
    ValueError
        If `reduction` is neither "mean" nor "sum", or `layers` are no weights.
    """

    needs_pairs: ClassVar[bool] = True

    def __init__(
        self,
        squared: bool = True,
        reduction: str = "mean",
        normalize: bool = False,
        layers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ValueError(f"rvl reduction {reduction!r} is unknown: choose mean or sum")
        self.squared = squared
        self.reduction = reduction
        self.normalize = normalize
        self.layers = weights_of(layers, "embedding")
        self.taps = tuple(name for name in self.layers if name != "embedding")

    def forward(self, out: Outputs) -> Tensor:
        """Compute the term, a scalar >= 0."""
        values = [weight * self._of(out.layer(name), out) for name, weight in self.layers.items()]
        return torch.stack(values).sum()

    def _of(self, z: Tensor, out: Outputs) -> Tensor:
        """Of the outputs (n, d) of one layer."""
        z = F.normalize(z, dim=1) if self.normalize else z
        # (n, K): row i is one over the size of i's class, at i's class
        member = F.one_hot(out.labels, out.logits.shape[1]).to(z.dtype)
        counts = member.sum(dim=0)
        share = member / counts.clamp(min=1)
        distance = (z - (share.T @ z)[out.labels]).square().sum(dim=1)
        if not self.squared:
            distance = root(distance)
        total = (distance * share.sum(dim=1)).sum()
        return total if self.reduction == "sum" else total / (counts > 0).sum()

    def extra_repr(self) -> str:
        """Show the hyper-parameters."""
        return f"squared={self.squared}, reduction={self.reduction!r}, normalize={self.normalize}, layers={self.layers}"
