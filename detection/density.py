"""Gaussian kernel density in log space, with a gradient that stays alive far from every kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# entries of one block of the distance matrix: 2**21 float64 are 16 MiB
BLOCK = 2**21


def squared_distances(points: Tensor, kernels: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M) of points (N, d) to kernels (M, d).

    Uses ||a||^2 + ||b||^2 - 2 a.b around the kernels' mean, which keeps the cancellation small. There is no
    square root, so the gradient is finite where a point lies on a kernel. Give float64.
    """
    centre = kernels.mean(dim=0)
    a, b = points - centre, kernels - centre
    squares = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1) - 2 * a @ b.T
    return squares.clamp(min=0)


def log_normaliser(count: int, dim: int, bandwidth: float) -> float:
    """Logarithm of M (2 pi h^2)^(d/2), the constant of a mean of M isotropic Gaussians in d dimensions."""
    return math.log(count) + dim * (0.5 * math.log(2 * math.pi) + math.log(bandwidth))


def log_density(points: Tensor, kernels: Tensor, bandwidth: float) -> Tensor:
    """Log of the kernel density estimate with isotropic Gaussian kernels.

    log p(z) = logsumexp_j(-||z - k_j||^2 / (2 h^2)) - log M - d/2 log(2 pi h^2)

    Parameters
    ----------
    points : Tensor
        (N, d) float64; the gradient flows back to them.
    kernels : Tensor
        (M, d) float64, the kernels' centres, M >= 1.
    bandwidth : float
        Standard deviation h > 0 of each kernel, in units of the embedding.

    Returns
    -------
    Tensor
        (N,) float64, natural-log densities. Rows are worked off in blocks, so memory stays small.
    """
    rows = max(1, BLOCK // len(kernels))
    scale = -0.5 / bandwidth**2
    blocks = [torch.logsumexp(scale * squared_distances(p, kernels), dim=1) for p in points.split(rows)]
    return torch.cat(blocks) - log_normaliser(len(kernels), points.shape[1], bandwidth)


def leave_one_out(kernels: Tensor, bandwidth: float) -> Tensor:
    """Log density of each kernel's centre under the *other* kernels.

    Parameters
    ----------
    kernels : Tensor
        (M, d) float64, M >= 2.
    bandwidth : float
        As in `log_density`.

    Returns
    -------
    Tensor
        (M,) float64. A centre that occurs twice keeps its double.
    """
    count, dim = kernels.shape
    values = []
    for rows in torch.arange(count, device=kernels.device).split(max(1, BLOCK // count)):
        squares = squared_distances(kernels[rows], kernels)
        squares[torch.arange(len(rows), device=rows.device), rows] = math.inf
        values.append(torch.logsumexp(-0.5 / bandwidth**2 * squares, dim=1))
    return torch.cat(values) - log_normaliser(count - 1, dim, bandwidth)
