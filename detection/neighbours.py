"""Nearest neighbours in torch: found without a gradient, measured with one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**21
"""Entries of a table of points x references, or of their differences: 16 MiB of float64."""


def nearest(points: Tensor, reference: Tensor, k: int) -> Tensor:
    """Row numbers of the k nearest references.

    Parameters
    ----------
    points, reference : Tensor
        (N, d) and (M, d) float64 on one device, M >= k.
    k : int
        Neighbours.

    Returns
    -------
    Tensor
        (N, k) int64, nearest first; ||r||^2 - 2 z r orders them, so differences below rounding may change places.
    """
    centre = reference.mean(dim=0)
    table, places = (reference - centre).T.contiguous(), []
    norms = table.square().sum(dim=0)
    for rows in (points.detach() - centre).split(max(1, BLOCK // len(reference))):
        # the point's own square would not change the order
        places.append((norms - 2 * rows @ table).topk(k, dim=1, largest=False, sorted=True).indices)
    return torch.cat(places)


def distances(points: Tensor, reference: Tensor, places: Tensor) -> Tensor:
    """Euclidean distances from chosen references, as the norm of the difference: exactly 0 for equal rows.

    Parameters
    ----------
    points, reference : Tensor
        (N, d) and (M, d) float64 on one device; the gradient flows back to the points, and is 0 at a distance of 0.
    places : Tensor
        (N, k) int64 rows of `reference`.

    Returns
    -------
    Tensor
        (N, k) float64.
    """
    step = max(1, BLOCK // max(1, places.shape[1] * points.shape[1]))
    pairs = zip(points.split(step), places.split(step), strict=True)
    return torch.cat([torch.linalg.vector_norm(z[:, None] - reference[rows], dim=2) for z, rows in pairs])


def unit(points: Tensor) -> Tensor:
    """Rows scaled to length 1; a row of zeros stays."""
    return points / torch.linalg.vector_norm(points, dim=1, keepdim=True).clamp(min=1e-12)


def draw(groups: list[Tensor], count: int, seed: int) -> Tensor:
    """Draw `count` rows of each class without replacement, all of a smaller class; class c by (seed, c) alone."""
    chosen = []
    for label, rows in enumerate(groups):
        picked = np.random.default_rng([seed, label]).permutation(len(rows))[:count]
        chosen.append(rows[torch.from_numpy(np.sort(picked)).to(rows.device)])
    return torch.cat(chosen)
