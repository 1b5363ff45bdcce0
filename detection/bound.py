"""The paper's lower bound on the distortion of an adversarial example (eq. 4): eta / ||J_F(x)||."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# entries of one block of the distance matrix: 2**21 float64 are 16 MiB
_BLOCK = 2**21


@dataclass(frozen=True)
class Bound:
    """The bound of one model.

    Attributes
    ----------
    eta : float
        Minimum distance between embeddings of two classes.
    eta_low : float
        The robust version: a low quantile of the points' distances to their nearest point of another class.
    jacobian : Tensor
        (N,) Frobenius norms of dz/dx.
    per_example : Tensor
        (N,) eta / ||J||, an L2 distance in units of the pixel range; infinite where J is 0.
    mean : float
        Mean of `per_example`.
    """

    eta: float
    eta_low: float
    jacobian: Tensor
    per_example: Tensor
    mean: float


def other_class_distance(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Distance of each embedding to the nearest embedding of any other class.

    Parameters
    ----------
    embeddings : Tensor
        (N, d) float: for eta, those of correctly classified test images.
    labels : Tensor
        (N,) int64, of two classes at least.

    Returns
    -------
    Tensor
        (N,) float64. Worked off in blocks of rows.

    Raises
    ------
    ValueError
        Where fewer than two classes are present.
    """
    if labels.unique().numel() < 2:
        raise ValueError("the distance between classes needs embeddings of two classes at least")
    points = embeddings.double()
    rows = max(1, _BLOCK // len(points))
    nearest = []
    for block, own in zip(points.split(rows), labels.split(rows), strict=True):
        distances = torch.cdist(block, points, compute_mode="donot_use_mm_for_euclid_dist")
        nearest.append(distances.masked_fill(own[:, None] == labels, math.inf).min(dim=1).values)
    return torch.cat(nearest)


def jacobian_norm(embed: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Frobenius norm of dz/dx for each image: one backward pass for each of the d embedding values.

    Parameters
    ----------
    embed : callable
        Images (N, C, H, W) to embeddings (N, d), row by row (a model in eval mode).
    x : Tensor
        (N, C, H, W) float; not changed, no gradient is left on it or on parameters.

    Returns
    -------
    Tensor
        (N,) float64.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        columns = embed(x).sum(dim=0).unbind()
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for column in columns:
            (gradient,) = torch.autograd.grad(column, x, retain_graph=True)
            total += gradient.double().flatten(1).square().sum(dim=1)
    return total.sqrt()


def distortion_bound(
    embeddings: Tensor, labels: Tensor, jacobian: Tensor, *, quantile: float = 0.01
) -> Bound:
    """Put the bound together.

    Parameters
    ----------
    embeddings, labels : Tensor
        (M, d) and (M,): the correctly classified test images.
    jacobian : Tensor
        (N,) norms of `jacobian_norm`, of these images or of some of them.
    quantile : float
        Which quantile `eta_low` is, within [0, 1].

    Returns
    -------
    Bound
        See there. ValueError as in `other_class_distance`.
    """
    nearest = other_class_distance(embeddings, labels)
    eta = float(nearest.min())
    per_example = eta / jacobian.double()
    return Bound(eta, float(nearest.quantile(quantile)), jacobian, per_example, float(per_example.mean()))
