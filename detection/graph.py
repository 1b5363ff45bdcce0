"""Scores as modules of plain tensor operations, which exporters can follow: no checks of values, no blocks, no loops.

A module maps layers by name, (N, d) each and "logits" (N, K) among them, to scores (N,) float64, as the detector's
`score` does on the layers that it `reads`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from detection import mapped
from detection.base import Detector
from detection.density import log_normaliser
from detection.entropy import NonMaximalEntropy
from detection.kde import KDE
from detection.knn import KNN
from detection.logit_score import LogitScore
from detection.mahalanobis import Mahalanobis, RelativeMahalanobis
from detection.neighbours import unit
from detection.odin import ODIN
from detection.ood import Energy, MaxLogit
from detection.softmax import MSP
from detection.unit_kde import UnitKDE


def scorer(detector: Detector) -> nn.Module:
    """Turn a fitted detector into a module of plain tensor operations.

    Parameters
    ----------
    detector : Detector
        One of those that `EXPORTABLE` names.

    Returns
    -------
    nn.Module
        On the CPU; ``module(layers)`` scores as ``detector.score(view)`` does, but for rounding.

    Raises
    ------
    ValueError
        For another detector.
    RuntimeError
        For one that is not fitted.
    """
    # a subclass may score in another way, so it is its own class or none
    make = _SCORERS.get(type(detector))
    if make is None:
        raise ValueError(
            f"{type(detector).__name__} has no graph to export, its score is no plain function of the layers: "
            f"choose one of {', '.join(EXPORTABLE)}"
        )
    return make(detector)


class _Density(nn.Module):
    """`KDE`, `UnitKDE`: each row is held against the kernels of its predicted class, which are looked up in one table.

    -||z - k||^2 = 2 (z - m) k - 2 (z - m) m - ||z - m||^2 - ||k - m||^2, m the mean of the class's kernels: they stay
    in float32, where that holds them, and are cast row by row, so a row takes M x d float64 numbers. Classes with fewer
    kernels than others are filled up with kernels of weight 0.
    """

    kernels: Tensor
    means: Tensor
    halves: Tensor
    normalisers: Tensor
    scale: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        assert isinstance(detector, KDE)
        state, self.layer = detector.state_dict(), detector.layer
        self.unit = isinstance(detector, UnitKDE)
        h, counts = float(state["bandwidth"]), state["classes"].bincount().tolist()
        kernels = _compact(state[detector.kernels_are])
        groups, dim = kernels.split(counts), kernels.shape[1]
        means, halves = [], torch.full((len(counts), max(counts)), -math.inf, dtype=torch.float64)
        for row, group in zip(halves, groups, strict=True):
            means.append(group.mean(dim=0, dtype=torch.float64))
            row[: len(group)] = (group.double() - means[-1]).square().sum(dim=1) / (-2 * h * h)
            mapped.release(group)
        if len(set(counts)) > 1:
            table = kernels.new_zeros(len(counts), max(counts), dim)
            for place, group in zip(table, groups, strict=True):
                place[: len(group)] = group
        else:
            table = kernels.view(len(counts), counts[0], dim)
        # a number in the code would be kept in float32
        self.register_buffer("scale", torch.tensor(h**-2, dtype=torch.float64))
        normalisers = [log_normaliser(count, dim, h) for count in counts]
        self.register_buffer("kernels", table)
        self.register_buffer("means", torch.stack(means))
        self.register_buffer("halves", halves)
        self.register_buffer("normalisers", torch.tensor(normalisers, dtype=torch.float64))

    def forward(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Score layers by name: (N,) float64."""
        predicted = layers["logits"].argmax(dim=1)
        means = self.means[predicted]
        z = layers[self.layer].double()
        z = (unit(z) if self.unit else z) - means
        products = torch.matmul(self.kernels[predicted].double(), z[:, :, None])[:, :, 0]
        exponents = self.scale * (products - (z * means).sum(dim=1, keepdim=True)) + self.halves[predicted]
        outer = 0.5 * (self.scale * z.square().sum(dim=1))
        return outer + self.normalisers[predicted] - torch.logsumexp(exponents, dim=1)


class _Logits(nn.Module):
    """A `LogitScore`, of the predicted class."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        assert isinstance(detector, LogitScore)
        detector.state_dict()  # which an unfitted detector has not
        self.detector = detector

    def forward(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Score layers by name: (N,) float64."""
        logits = layers["logits"].double()
        return self.detector._of(logits, logits.argmax(dim=1))


class _Gaussians(nn.Module):
    """`Mahalanobis` and `RelativeMahalanobis`, summed over layers."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        assert isinstance(detector, Mahalanobis)
        self.detector = detector
        self.places: dict[str, str] = {}
        for name, tensor in detector.state_dict().items():
            self.places[name.partition(".")[2]] = place = f"part{len(self.places)}"
            self.register_buffer(place, tensor)

    def forward(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Score layers by name: (N,) float64."""
        scores = []
        for layer in self.detector.layers:
            parts = {p: getattr(self, self.places[f"{layer}.{p}"]) for p in self.detector._parts}
            scores.append(self.detector._score_layer(layers[layer].double(), parts))
        return torch.stack(scores, dim=1).sum(dim=1)


class _Neighbour(nn.Module):
    """`KNN`: the k-th nearest by products, its distance from the difference."""

    reference: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        assert isinstance(detector, KNN)
        (reference,) = detector.state_dict().values()
        self.k, self.layer, self.normalize = detector.k, detector.layer, detector.normalize
        self.register_buffer("reference", reference)

    def forward(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Score layers by name: (N,) float64."""
        points = layers[self.layer].double()
        points = unit(points) if self.normalize else points
        centre = self.reference.mean(dim=0)
        others = self.reference - centre
        table = others.square().sum(dim=1) - 2 * (points - centre) @ others.T
        last = table.topk(self.k, dim=1, largest=False).indices[:, -1]
        return (points - self.reference[last]).square().sum(dim=1).sqrt()


_SCORERS: dict[type[Detector], Callable[[Detector], nn.Module]] = {
    KDE: _Density,
    UnitKDE: _Density,
    KNN: _Neighbour,
    Mahalanobis: _Gaussians,
    RelativeMahalanobis: _Gaussians,
    MSP: _Logits,
    MaxLogit: _Logits,
    Energy: _Logits,
    NonMaximalEntropy: _Logits,
    ODIN: _Logits,
}
EXPORTABLE = tuple(kind.__name__ for kind in _SCORERS)
"""Names of the detectors that have a graph."""


def _compact(kernels: Tensor) -> Tensor:
    """Kernels as float32 where that holds the same numbers, else as float64."""
    if kernels.dtype == torch.float32:
        return kernels
    small = kernels.float()
    return small if torch.equal(small.to(kernels.dtype), kernels) else kernels
