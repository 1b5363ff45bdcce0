"""How tight and how far apart the classes lie in the embedding."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from detection.intervals import Interval
from detection.resampling import percentiles

# entries of one block of distances between class means: 2**21 float64 are 16 MiB
_BLOCK = 2**21


def class_means(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean embedding of each class present.

    Parameters
    ----------
    embeddings : Tensor
        (N, d) float.
    labels : Tensor
        (N,) int64.

    Returns
    -------
    means : Tensor
        (M, d) float64, classes in rising order.
    member : Tensor
        (N,) int64, the row of `means` that each embedding belongs to.

    Raises
    ------
    ValueError
        For shapes that do not belong together, or no embedding at all.
    """
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"need embeddings (N, d) and labels (N,) with N >= 1, "
            f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
        )
    classes, member, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(classes), embeddings.shape[1], dtype=torch.float64, device=embeddings.device)
    return sums.index_add(0, member, embeddings.double()) / counts[:, None], member


def cluster_variance(embeddings: Tensor, labels: Tensor) -> float:
    """CV = sum_c 1/N_c sum_i ||z_i - mu_c||_2, as the paper prints it (section 3): the norm is not squared.

    Parameters and errors as in `class_means`; in units of the embedding.
    """
    means, member = class_means(embeddings, labels)
    distances = (embeddings.double() - means[member]).norm(dim=1)
    sums = distances.new_zeros(len(means)).index_add(0, member, distances)
    return float((sums / member.bincount()).sum())


def cluster_distance(embeddings: Tensor, labels: Tensor) -> float:
    """CD = 1/M sum_i 1/(M-1) sum_{c != i} ||mu_i - mu_c||_2 over the M classes present (section 3).

    Parameters and errors as in `class_means`; in units of the embedding, NaN for a single class.
    """
    means, _ = class_means(embeddings, labels)
    if len(means) < 2:
        return math.nan
    return float(torch.nn.functional.pdist(means).mean())


def davies_bouldin(embeddings: Tensor, labels: Tensor) -> float:
    """Davies-Bouldin index: the mean over classes of the worst (spread_i + spread_j) / distance_ij.

    Lower is better. A spread is a class's mean distance to its own mean.

    Parameters
    ----------
    embeddings : Tensor
        (N, d) float.
    labels : Tensor
        (N,) int64.

    Returns
    -------
    float
        The index; NaN, with a warning that names the reason, where it is undefined: a single class, as many
        classes as points, embeddings that are not finite, or class means that coincide (scikit-learn gives
        such pairs 0, as if they were perfectly apart).

    Raises
    ------
    ValueError
        As `class_means`.
    """
    means, member = class_means(embeddings, labels)
    points = embeddings.double()
    # the index has no scale but scikit-learn's tests for zero have: measure in units of the overall spread
    scale = float((points - points.mean(dim=0)).norm(dim=1).mean())
    reason = _undefined(means, len(points), scale)
    if reason:
        warnings.warn(f"the Davies-Bouldin index is undefined: {reason}", stacklevel=2)
        return math.nan
    scaled = (points - points.mean(dim=0)) / scale
    from sklearn.metrics import davies_bouldin_score  # a second that planning a study need not wait

    return float(davies_bouldin_score(scaled.cpu().numpy(), member.cpu().numpy()))


def _undefined(means: Tensor, points: int, scale: float) -> str:
    """Say why the index is undefined, or "" where it is defined."""
    if not math.isfinite(scale):
        return "embeddings are not finite"
    if len(means) < 2 or len(means) == points:
        return f"{len(means)} classes among {points} points"
    if scale == 0 or float(torch.nn.functional.pdist(means).min()) <= 1e-8 * scale:
        return "the means of two classes coincide"
    return ""


def cluster_intervals(
    embeddings: Tensor, labels: Tensor, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Davies-Bouldin index, cluster variance and distance with 95 % percentile bootstrap intervals.

    Images are drawn within their classes, so that every resample holds all classes. The intervals hold the chance of
    the images, and not that of a training.

    Parameters
    ----------
    embeddings, labels : Tensor
        As in `class_means`.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    dict of str to Interval
        ``dbi``, ``cluster_variance`` and ``cluster_distance``, n the images; a value that is undefined is None.

    Raises
    ------
    ValueError
        As `class_means`.
    """
    measures: dict[str, Callable[[Tensor, Tensor], float]] = {
        "dbi": davies_bouldin,
        "cluster_variance": cluster_variance,
        "cluster_distance": cluster_distance,
    }
    values = {name: measure(embeddings, labels) for name, measure in measures.items()}
    drawn = _resampled(embeddings, labels, resamples, seed) if math.isfinite(values["dbi"]) else {}
    return {
        name: Interval(value, *percentiles(drawn[name], 0.95), len(labels))
        if name in drawn
        else Interval(value if math.isfinite(value) else None, None, None, len(labels))
        for name, value in values.items()
    }


def _resampled(embeddings: Tensor, labels: Tensor, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """(resamples,) of each measure."""
    points = (embeddings.double() - embeddings.double().mean(dim=0)).cpu()
    rng, means, spreads = np.random.default_rng(seed), [], []
    for label in labels.unique().tolist():
        own = points[(labels == label).cpu()]
        n = len(own)
        weights = torch.from_numpy(rng.multinomial(n, np.full(n, 1 / n), size=resamples)).double()
        mean = weights @ own / n
        squares = mean.square().sum(dim=1)[:, None] - 2 * mean @ own.T + own.square().sum(dim=1)
        means.append(mean)
        spreads.append((weights * squares.clamp(min=0).sqrt()).sum(dim=1) / n)
    centres, spread = torch.stack(means, dim=1), torch.stack(spreads, dim=1)
    size, worst, apart = max(1, _BLOCK // len(means) ** 2), [], []
    for middle, wide in zip(centres.split(size), spread.split(size), strict=True):
        distance = torch.cdist(middle, middle)
        ratio = (wide[:, :, None] + wide[:, None, :]) / distance
        ratio.diagonal(dim1=1, dim2=2).zero_()
        worst.append(ratio.amax(dim=2).mean(dim=1))
        apart.append(distance.sum(dim=(1, 2)) / (len(means) * (len(means) - 1)))
    found = {
        "dbi": torch.cat(worst),
        "cluster_variance": spread.sum(dim=1),
        "cluster_distance": torch.cat(apart),
    }
    return {name: values.numpy() for name, values in found.items()}
