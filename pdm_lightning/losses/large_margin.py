"""Large-margin loss at any layers, after Elsayed, Krishnan, Mobahi, Regan and Bengio 2018."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from pdm_lightning.losses.base import Outputs, Term, root, weights_of

# by the norm p of the distance, the dual norm q of a gradient: 1/p + 1/q = 1
_DUAL = {"1": "inf", "2": "2", "inf": "1"}
AGGREGATES = ("sum", "max")
"""Over the wrong classes."""


class LargeMargin(Term):
    """Hinge on the linearised distance of a layer's output to the boundary of every wrong class.

    ``max(0, gamma + (f_j - f_y) / (||grad_h f_j - grad_h f_y||_q + eps))`` for an image of class y with readout logits
    f, a wrong class j and the output h of a layer: gamma minus the distance, in the norm p, that h has to the plane
    ``f_j = f_y``. The sum or maximum over j, the weighted sum over layers, the
    mean over the batch of each branch; on pairs, the sum of the two branches.

    In train mode a batch norm couples the images of a batch, and the gradient of an image holds what it does to the
    others: the formula is that of fixed statistics.

    Parameters
    ----------
    layers
        Weight by place: "input" (pixels in [0, 1]), "embedding", or a submodule of the classifier, whose output is
        taken whole. None: the input alone.
    gamma
        Distance that is asked for, in units of the layer's output: of all layers, or by layer; > 0.
    norm
        p of the distance: 1, 2 or "linf" (or "inf"). q is its dual: inf, 2 or 1.
    top_k
        Wrong classes that count, those of the largest logits; None: all. Each costs a backward pass.
    aggregate
        Out of `AGGREGATES`.
    differentiate
        Differentiate the norm of the gradient as well (a second backward pass through the network), where the paper's
        cheaper variant takes it for a constant at each step.
    eps
        >= 0; keeps the quotient finite where the gradient vanishes.

    Raises
    ------
    ValueError
        If one of these is not as described.
    """

    def __init__(
        self,
        layers: Mapping[str, float] | None = None,
        gamma: float | Mapping[str, float] = 1.0,
        norm: int | float | str = 2,
        top_k: int | None = None,
        aggregate: str = "sum",
        differentiate: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.layers = weights_of(layers, "input")
        self.places = tuple(self.layers)
        self.gammas = _gammas(gamma, self.places)
        norm = "inf" if norm in (math.inf, "linf") else str(norm)
        if norm not in _DUAL:
            raise ValueError(f"norm {norm} of a large margin is unknown: choose {', '.join(_DUAL)}")
        if top_k is not None and not (isinstance(top_k, int) and top_k >= 1):
            raise ValueError(f"top_k {top_k!r} is no whole number >= 1: give one, or null for all classes")
        if aggregate not in AGGREGATES:
            raise ValueError(f"aggregate {aggregate!r} is unknown: choose {' or '.join(AGGREGATES)}")
        if not (math.isfinite(eps) and eps >= 0):
            raise ValueError(f"eps {eps} is not a finite number >= 0: choose e.g. 1e-6")
        self.norm, self.top_k, self.aggregate = norm, top_k, aggregate
        self.differentiate, self.eps = differentiate, eps

    def forward(self, out: Outputs) -> Tensor:
        """Compute the term, a scalar >= 0."""
        gaps = self._gaps(out.read(), out.labels)
        hinges: dict[str, list[Tensor]] = {name: [] for name in self.places}
        graph = self.differentiate and self.training
        for gap in gaps.unbind(dim=1):
            for name, slope in zip(self.places, out.slopes(gap.sum(), self.places, graph), strict=True):
                length = _length(slope if graph else slope.detach(), _DUAL[self.norm])
                hinges[name].append(F.relu(self.gammas[name] + gap / (length + self.eps)))
        values = [weight * self._joined(hinges[name]) for name, weight in self.layers.items()]
        return out.mean(torch.stack(values).sum(dim=0))

    def _gaps(self, scores: Tensor, labels: Tensor) -> Tensor:
        """(N, k): f_j - f_y of the wrong classes that count."""
        wrong = scores.shape[1] - 1
        own = F.one_hot(labels, wrong + 1).bool()
        rivals = scores.detach().masked_fill(own, -math.inf).topk(min(self.top_k or wrong, wrong), dim=1)
        return scores.gather(1, rivals.indices) - scores.gather(1, labels[:, None])

    def _joined(self, hinges: list[Tensor]) -> Tensor:
        table = torch.stack(hinges)
        return table.sum(dim=0) if self.aggregate == "sum" else table.amax(dim=0)

    def extra_repr(self) -> str:
        """Show the hyper-parameters."""
        return (
            f"layers={self.layers}, gamma={self.gammas}, norm={self.norm}, top_k={self.top_k}, "
            f"aggregate={self.aggregate!r}, differentiate={self.differentiate}, eps={self.eps}"
        )


def _gammas(gamma: float | Mapping[str, float], places: tuple[str, ...]) -> dict[str, float]:
    by_layer = dict(gamma) if isinstance(gamma, Mapping) else dict.fromkeys(places, gamma)
    missing = [name for name in places if name not in by_layer]
    if missing:
        raise ValueError(f"gamma has no value for {missing[0]!r}: give one a layer, or a single number")
    for value in by_layer.values():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ValueError(f"gamma {value!r} is not a finite number above 0: choose e.g. 1")
    return {name: float(by_layer[name]) for name in places}


def _length(slope: Tensor, norm: str) -> Tensor:
    """Norm of each row of (N, n)."""
    if norm == "2":
        return root(slope.square().sum(dim=1))
    return slope.abs().sum(dim=1) if norm == "1" else slope.abs().amax(dim=1)
