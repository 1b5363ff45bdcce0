"""Rules that choose one kernel bandwidth h for all classes.

Both likelihood rules maximise L(h), the mean over points i of the log density under the kernels j of i's own
class. Its stationary points obey

    h^2 = mean_i sum_j w_ij d_ij^2 / d,      w_ij = softmax_j(-d_ij^2 / (2 h^2)),

and the weighted mean lies between the smallest and the plain mean of the squared distances. So the global
maximum is inside [sqrt(mean_i min_j d_ij^2 / d), sqrt(mean_i mean_j d_ij^2 / d)]. That range is scanned on a
logarithmic grid (L may have several maxima) and the best grid point is refined by a golden-section search.

The tables of distances hold `DISTANCES` numbers at most. Where all points would need more, each class gives every n-th
of its points, each still seen by all kernels of its class: the mean is then taken over a sample of the points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from detection import mapped
from detection.density import log_normaliser

DISTANCES = 2**27
"""Distances of points to kernels that a rule looks at, at most: 1 GiB of float64."""

GRID = 25
TOLERANCE = 1e-5
_EXACT = "donot_use_mm_for_euclid_dist"


def by_validation(kernels: Sequence[Tensor], points: Sequence[Tensor]) -> float:
    """Maximise the likelihood of held-out points under the kernels of their own class.

    Parameters
    ----------
    kernels : sequence of Tensor
        Per class c the kernels' centres (M_c, d), of any float dtype; what is computed of them is float64.
    points : sequence of Tensor
        Per class c the held-out points (N_c, d), of any float dtype; a class without any is left out.

    Returns
    -------
    float
        The bandwidth, to a relative precision of 1e-5.

    Raises
    ------
    ValueError
        Without any point, or where every point coincides with a kernel (the likelihood is unbounded).
    """
    pairs = [(p, k) for p, k in zip(points, kernels, strict=True) if len(p) and len(k)]
    step = _stride(len(p) * len(k) for p, k in pairs)
    squares = _tables([(p[::step], k) for p, k in pairs])
    if not squares:
        raise ValueError(
            "bandwidth 'validation' needs validation embeddings: "
            "enlarge the validation split or use bandwidth=loo"
        )
    return _most_likely(squares, [s.shape[1] for s in squares], kernels[0].shape[1])


def leave_one_out(kernels: Sequence[Tensor]) -> float:
    """Maximise the likelihood of each kernel's centre under the *other* kernels of its class.

    `kernels` as in `by_validation`; a class with a single kernel is left out. ValueError where no class has
    two kernels or where every kernel has an exact duplicate.
    """
    squares = _own_squares(kernels, "loo")
    return _most_likely(squares, [len(s) - 1 for s in squares], kernels[0].shape[1])


def nearest_neighbour_median(kernels: Sequence[Tensor]) -> float:
    """Median, over all kernels, of the distance to the nearest other kernel of the same class.

    `kernels` as in `by_validation`; a class with a single kernel is left out. ValueError where no class has
    two kernels or where the median is 0.
    """
    nearest = torch.cat([s.min(dim=1).values for s in _own_squares(kernels, "nn_median")]).sqrt()
    median = float(nearest.quantile(0.5))
    if median == 0:
        raise ValueError(_coincide("nn_median"))
    return median


def mean_log_likelihood(
    squares: Sequence[Tensor], counts: Sequence[int], dim: int, bandwidth: float
) -> float:
    """Compute L(h) from per-class squared distances.

    Parameters
    ----------
    squares : sequence of Tensor
        Per class (N_c, M_c) squared distances of points to kernels; infinite where a kernel does not count.
    counts : sequence of int
        Per class the number of kernels that count for each point.
    dim : int
        Dimension d of the embedding.
    bandwidth : float
        The bandwidth h > 0.

    Returns
    -------
    float
        Mean log density over all points of all classes.
    """
    total = 0.0
    for square, count in zip(squares, counts, strict=True):
        logs = torch.logsumexp(square * (-0.5 / bandwidth**2), dim=1)
        total += float(logs.sum()) - len(square) * log_normaliser(count, dim, bandwidth)
    return total / sum(len(s) for s in squares)


def _tables(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Squared distances (N_c, M_c) float64 of each pair's points from its kernels."""
    # in one piece of memory: kept ones between the casts of large kernels would tear the heap into useless holes
    sizes = [len(points) * len(kernels) for points, kernels in pairs]
    memory = torch.empty(sum(sizes), dtype=torch.float64, device=pairs[0][1].device if pairs else None)
    tables = []
    for (points, kernels), part in zip(pairs, memory.split(sizes), strict=True):
        # direct differences: coinciding points give an exact 0; cdist's root does no harm without a gradient
        distances = torch.cdist(points.double(), kernels.double(), compute_mode=_EXACT)
        tables.append(torch.mul(distances, distances, out=part.view(distances.shape)))
        mapped.release(points)
        mapped.release(kernels)
    return tables


def _stride(tables: Iterable[int]) -> int:
    """1 where all distances fit, else the n of every n-th point."""
    return max(1, math.ceil(sum(tables) / DISTANCES))


def _own_squares(kernels: Sequence[Tensor], rule: str) -> list[Tensor]:
    groups = [k for k in kernels if len(k) > 1]
    step = _stride(len(k) ** 2 for k in groups)
    squares = _tables([(own[::step], own) for own in groups])
    for table in squares:
        rows = torch.arange(len(table), device=table.device)
        table[rows, rows * step] = math.inf
    if not squares:
        raise ValueError(
            f"bandwidth {rule!r} needs a class with two kernels: raise kernels_per_class or give a number"
        )
    return squares


def _most_likely(squares: list[Tensor], counts: list[int], dim: int) -> float:
    """Find the global maximum of L(h); see the module's text for the range."""
    points = sum(len(s) for s in squares)
    low = sum(float(s.min(dim=1).values.sum()) for s in squares) / points / dim
    means = (torch.where(s.isinf(), 0, s).sum() / n for s, n in zip(squares, counts, strict=True))
    high = sum(float(m) for m in means) / points / dim
    if low == 0:
        raise ValueError(_coincide("by likelihood"))

    def value(log_h: float) -> float:
        return mean_log_likelihood(squares, counts, dim, math.exp(log_h))

    grid = torch.linspace(
        0.5 * math.log(low), 0.5 * math.log(max(low, high)), GRID, dtype=torch.float64
    ).tolist()
    values = [value(g) for g in grid]
    best = max(range(GRID), key=values.__getitem__)
    return math.exp(_golden_section(value, grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]))


def _golden_section(value: Callable[[float], float], low: float, high: float) -> float:
    """Maximise a function with one maximum in [low, high] to an absolute precision of TOLERANCE."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = value(left), value(right)
    while high - low > TOLERANCE:
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = value(right)
    return 0.5 * (low + high)


def _coincide(rule: str) -> str:
    return (
        f"bandwidth {rule}: the embeddings coincide, so no positive bandwidth follows from them; "
        "the model has probably collapsed: check its training, or give the bandwidth a number"
    )
