"""Jacobian regularisation by random projections, after Hoffman, Roberts and Yaida 2019."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pdm_lightning.losses.base import Outputs, Term, root

OF = ("embedding", "logits")
"""What is differentiated."""


class Jacobian(Term):
    """Squared Frobenius norm of the Jacobian of a layer with respect to the image.

    ``||J||_F^2 = sum_c ||d o_c / dx||^2`` for pixels in [0, 1], the mean over the batch of each branch; on pairs, the
    sum of the two branches. For a unit vector v that is uniform on the sphere of the C outputs,
    ``C ||d (v . o) / dx||^2`` has this mean (Hoffman et al., section 2.3), so a projection costs one backward pass
    where the exact norm costs C. The directions come from PyTorch's global stream, which a training step seeds.

    In train mode a batch norm couples the images of a batch, and the gradient of an image holds what it does to the
    others: the formula is that of fixed statistics.

    Parameters
    ----------
    of
        Out of `OF`: the embedding, whose J is that of the bound which PDM maximises (the paper's equation 4), or the
        logits, as Hoffman et al. have it.
    projections
        Random directions of each image, or "exact".
    squared
        Square the norm, as printed, or take it as it is (of few projections, too small on average).

    Raises
    ------
    ValueError
        If `of` is unknown, or `projections` is neither "exact" nor a whole number >= 1.
    """

    places = ("input",)

    def __init__(self, of: str = "embedding", projections: int | str = 1, squared: bool = True) -> None:
        super().__init__()
        if of not in OF:
            raise ValueError(f"of: the Jacobian of {of!r} is unknown: choose {' or '.join(OF)}")
        whole = isinstance(projections, int) and not isinstance(projections, bool) and projections >= 1
        if not (whole or projections == "exact"):
            raise ValueError(f"projections {projections!r} is no whole number >= 1: give one, or exact")
        self.of, self.projections, self.squared = of, projections, squared

    def forward(self, out: Outputs) -> Tensor:
        """Compute the term, a scalar >= 0; differentiable in training mode alone."""
        values = out.embeddings if self.of == "embedding" else out.logits
        squares = values.new_zeros(len(values))
        for direction in self._directions(values):
            (slope,) = out.slopes((values * direction).sum(), self.places, create_graph=self.training)
            squares = squares + slope.square().sum(dim=1)
        if isinstance(self.projections, int):
            squares = squares * (values.shape[1] / self.projections)
        return out.mean(squares if self.squared else root(squares))

    def _directions(self, values: Tensor) -> Tensor:
        """(n, N or 1, C) unit vectors."""
        if isinstance(self.projections, str):
            return torch.eye(values.shape[1], dtype=values.dtype, device=values.device)[:, None]
        shape = (self.projections, *values.shape)
        return F.normalize(torch.randn(shape, dtype=values.dtype, device=values.device), dim=2)

    def extra_repr(self) -> str:
        """Show the hyper-parameters."""
        return f"of={self.of!r}, projections={self.projections!r}, squared={self.squared}"
