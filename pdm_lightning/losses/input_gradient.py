"""Input-gradient regularisation (double backpropagation), after Ross and Doshi-Velez 2018."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pdm_lightning.losses.base import Outputs, Term, root


class InputGradient(Term):
    """Squared L2 norm of the gradient of an image's cross-entropy with respect to the image.

    ``||d/dx -log_softmax(readout)_y||^2`` for pixels in [0, 1] (the sum over an
    image's pixels), the mean over the batch of each branch; on pairs, the sum of the two branches. It penalises a loss
    and does not minimise it: it needs a classification term beside it.

    In train mode a batch norm couples the images of a batch, and the gradient of an image holds what it does to the
    others: the formula is that of fixed statistics.

    Parameters
    ----------
    squared
        Square the norm, as printed, or take it as it is.
    """

    places = ("input",)

    def __init__(self, squared: bool = True) -> None:
        super().__init__()
        self.squared = squared

    def forward(self, out: Outputs) -> Tensor:
        """Compute the term, a scalar >= 0; differentiable in training mode alone."""
        total = F.cross_entropy(out.read(), out.labels, reduction="sum")
        (slope,) = out.slopes(total, self.places, create_graph=self.training)
        squares = slope.square().sum(dim=1)
        return out.mean(squares if self.squared else root(squares))

    def extra_repr(self) -> str:
        """Show the hyper-parameters."""
        return f"squared={self.squared}"
