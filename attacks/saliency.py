"""Saliency of pixels and pairs of pixels: the exact best of each image, without a table of all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

# elements of the table of candidate pairs that are held at once
TABLE = 1 << 22


def best_pixel(gain: Tensor, drop: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The allowed pixel with the largest gain * drop, where both are positive.

    Parameters
    ----------
    gain, drop : Tensor
        (n, D): by how much a step on the pixel raises what is wanted, and lowers what is not.
    allowed : Tensor
        (n, D) bool.

    Returns
    -------
    pixels : Tensor
        (n, 1) int64.
    found : Tensor
        (n,) bool: false where no pixel qualifies; `pixels` is then meaningless.
    """
    score = torch.where(allowed & (gain > 0) & (drop > 0), gain * drop, 0)
    top, pixel = score.max(dim=1, keepdim=True)
    return pixel, top.squeeze(1) > 0


def best_pair(gain: Tensor, drop: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The two allowed pixels p, q with the largest (gain_p + gain_q) * (drop_p + drop_q), both sums positive.

    The product grows with either sum, so replacing a pixel by one with more gain and more drop never hurts:
    the best pair lies among the pixels that at most one other surpasses in both. These stand in the first
    two Pareto fronts, some tens of pixels instead of D (D log D work for an image, not D^2).

    Parameters
    ----------
    gain, drop, allowed
        As for `best_pixel`.

    Returns
    -------
    pixels : Tensor
        (n, 2) int64.
    found : Tensor
        (n,) bool: false where no pair qualifies; `pixels` is then meaningless.
    """
    gain = torch.where(allowed, gain, -torch.inf)
    drop = torch.where(allowed, drop, -torch.inf)
    order = gain.argsort(dim=1, descending=True, stable=True)
    kept = _two_fronts(drop.gather(1, order))
    chosen, width = _left_aligned(order, kept)
    # one more column, at infinity, for the rows that have fewer candidates than the widest
    edge = gain.new_full((len(gain), 1), -torch.inf)
    gains = torch.cat([gain, edge], dim=1).gather(1, chosen)
    drops = torch.cat([drop, edge], dim=1).gather(1, chosen)
    rows = max(1, TABLE // width**2)
    parts = [_best_of_table(g, d) for g, d in zip(gains.split(rows), drops.split(rows), strict=True)]
    pair, top = (torch.cat(column) for column in zip(*parts, strict=True))
    pixels = chosen.gather(1, pair).clamp(max=gain.shape[1] - 1)
    return pixels, top > 0


def _two_fronts(drop: Tensor) -> Tensor:
    """(n, D) bool, for columns in order of falling gain: in one of the first two Pareto fronts."""
    kept = torch.zeros_like(drop, dtype=torch.bool)
    start = drop.new_full((len(drop), 1), -torch.inf)
    for _ in range(2):
        rest = drop.masked_fill(kept, -torch.inf)
        before = torch.cat([start, rest.cummax(dim=1).values[:, :-1]], dim=1)
        kept = kept | (rest > before)
    return kept


def _left_aligned(order: Tensor, kept: Tensor) -> tuple[Tensor, int]:
    """The kept entries of each row moved left, (n, width); the rest holds D, one past the last pixel."""
    width = max(2, int(kept.sum(dim=1).max()))
    chosen = order.new_full((len(order), width), order.shape[1])
    row, column = kept.nonzero(as_tuple=True)
    chosen[row, (kept.cumsum(dim=1) - 1)[row, column]] = order[row, column]
    return chosen, width


def _best_of_table(gains: Tensor, drops: Tensor) -> tuple[Tensor, Tensor]:
    """Best pair of columns (n, 2) and its score (n,), 0 where none qualifies, by a table of all pairs."""
    width = gains.shape[1]
    gain, drop = gains[:, :, None] + gains[:, None, :], drops[:, :, None] + drops[:, None, :]
    distinct = torch.ones(width, width, dtype=torch.bool, device=gains.device).triu(1)
    score = torch.where(distinct & (gain > 0) & (drop > 0), gain * drop, 0)
    top, place = score.flatten(1).max(dim=1)
    return torch.stack([place // width, place % width], dim=1), top
