"""How tight and how far apart the classes lie in the embedding."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor


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
