"""Whether a training merged its classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: Cosine between class means above which the classes count as merged.
MAX_COSINE = 0.95


@torch.no_grad()
def measure_collapse(embeddings: Tensor, labels: Tensor) -> dict[str, Any]:
    """Compare the class means of embeddings with each other and with the spread inside the classes.

    Parameters
    ----------
    embeddings
        (N, d).
    labels
        (N,) int64; classes without an embedding are skipped.

    Returns
    -------
    dict
        ``cosine`` (mean over pairs of classes of the cosine between their means), ``cosine_max``,
        ``distance`` (mean over pairs of the distance of their means), ``distance_min``, ``spread`` (mean over
        classes of the mean distance of an embedding to its class mean), and ``collapsed``: cosine > 0.95 or
        distance < spread.

    Raises
    ------
    ValueError
        If fewer than two classes have an embedding.
    """
    z = embeddings.double()
    groups = [z[labels == label] for label in labels.unique()]
    if len(groups) < 2:
        raise ValueError(
            "a collapse is measured between at least two classes: give embeddings of more classes"
        )
    means = torch.stack([group.mean(dim=0) for group in groups])
    spread = torch.stack([(g - m).norm(dim=1).mean() for g, m in zip(groups, means, strict=True)]).mean()
    one, other = torch.triu_indices(len(means), len(means), offset=1)
    cosine = F.cosine_similarity(means[one], means[other], dim=1)
    distance = (means[one] - means[other]).norm(dim=1)
    return {
        "cosine": float(cosine.mean()),
        "cosine_max": float(cosine.max()),
        "distance": float(distance.mean()),
        "distance_min": float(distance.min()),
        "spread": float(spread),
        "collapsed": bool(cosine.mean() > MAX_COSINE or distance.mean() < spread),
    }
