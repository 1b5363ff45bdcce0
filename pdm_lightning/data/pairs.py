"""Siamese partners: who stands beside each anchor (Algorithm 1 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor


def pair_indices(labels: Tensor, q: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one partner for every anchor.

    With probability q the partner's class is the anchor's own, else it is uniform over the *other* classes
    that have images; the partner is then uniform over that class's images (the anchor itself included, as
    printed).

    Parameters
    ----------
    labels
        int64, shape (N,), on the CPU: the classes of all anchors, which are the candidates as well.
    q
        Probability of a same-class pair, in [0, 1].
    generator
        CPU generator that every draw comes from.

    Returns
    -------
    partner : Tensor
        int64, shape (N,): index of each anchor's partner.
    same : Tensor
        bool, shape (N,): whether the two share a class.

    Raises
    ------
    ValueError
        If q is outside [0, 1], or other classes are asked for (q < 1) and there is one class only.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"q={q} is no probability: take defense.q between 0 and 1")
    classes, own, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(classes) < 2 and q < 1.0:
        raise ValueError(
            "pairs of different classes need at least 2 classes: take defense.q=1 or more classes"
        )
    n = len(labels)
    same = torch.rand(n, generator=generator, dtype=torch.float64) < q
    chosen = own
    if len(classes) > 1:
        other = torch.randint(len(classes) - 1, (n,), generator=generator)
        # skipping the anchor's own class keeps the draw uniform over the others
        chosen = torch.where(same, own, other + (other >= own))
    by_class = own.argsort(stable=True)
    first = counts.cumsum(0) - counts
    # float64 below 1 times a count below 2**53 stays below the count once rounded down
    rank = (torch.rand(n, generator=generator, dtype=torch.float64) * counts[chosen]).long()
    return by_class[first[chosen] + rank.minimum(counts[chosen] - 1)], same
