"""Saliency of pixels and pairs of pixels: the exact best of each image, without a table of all pairs.

Scores are compared in float64, where no product of float32 gradients is lost to underflow. No bound that rules
pairs out is turned round by rounding: rounded sums and products still grow with each of their terms, and the
other bounds are given `SLACK`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# candidates on a side of a tile, the unit in which pairs are ruled out
SIDE = 32
# numbers that are worked on at once on a CPU, some of which its cache holds
AT_ONCE = 1 << 17
# far more than rounding takes from a bound, relative to its largest term
SLACK = 1e-13
# stands for minus infinity; finite, since 0 times it has to be 0
NEVER = -1e300


def best_pixel(gain: Tensor, drop: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The allowed pixel with the largest gain * drop, where both are positive.

    Parameters
    ----------
    gain, drop : Tensor
        (n, D): by how much a step on the pixel raises what is wanted, and lowers what is not.
    allowed : Tensor
        (n, D) bool. A pixel whose gain or drop is not finite is left out as well.

    Returns
    -------
    pixels : Tensor
        (n, 1) int64.
    found : Tensor
        (n,) bool: false where no pixel qualifies; `pixels` is then meaningless.
    """
    gain, drop = _usable(gain, drop, allowed)
    top, pixel = _score(gain, drop).max(dim=1, keepdim=True)
    return pixel, top.squeeze(1) > 0


def best_pair(gain: Tensor, drop: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The two allowed pixels p, q with the largest (gain_p + gain_q) * (drop_p + drop_q), both sums positive.

    The product grows with either sum. So a pixel is out if no partner could lift it to the score of some known
    pair (`_may_win`); and so is one that two others match or surpass in both, for one of the two can take its
    place in any pair. What is left, mostly some tens of pixels, is searched by branch and bound over tiles of
    the table of pairs (`_best_of_tiles`).

    Parameters
    ----------
    gain, drop, allowed
        As for `best_pixel`.

    Returns
    -------
    pixels : Tensor
        (n, 2) int64. Of several best pairs always the same one, whatever else is in the batch.
    found : Tensor
        (n,) bool: false where no pair qualifies; `pixels` is then meaningless.
    """
    rows = max(1, _at_once(gain) // max(gain.shape[1], SIDE**2))
    parts = zip(*(values.split(rows) for values in (gain, drop, allowed)), strict=True)
    pixels, found = (torch.cat(column) for column in zip(*(_best_pair(*part) for part in parts), strict=True))
    return pixels, found


def _best_pair(gain: Tensor, drop: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """`best_pair` of a few images."""
    last = gain.shape[1] - 1
    gain, drop = _usable(gain, drop, allowed)
    chosen, gain, drop = _compact(_may_win(gain, drop), gain, drop)
    order = gain.argsort(dim=1, descending=True, stable=True)
    chosen, gain, drop = (values.gather(1, order) for values in (chosen, gain, drop))
    place, gain, drop = _compact(_two_fronts(drop), gain, drop)
    chosen = F.pad(chosen, (0, 1), value=last).gather(1, place)
    pair, top = _best_of_tiles(gain, drop)
    return chosen.gather(1, pair).clamp(max=last), top > 0


def _usable(gain: Tensor, drop: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Gains and drops in float64, out of reach where a pixel must not be taken."""
    usable = allowed & gain.isfinite() & drop.isfinite()
    return torch.where(usable, gain.double(), NEVER), torch.where(usable, drop.double(), NEVER)


def _score(gain: Tensor, drop: Tensor) -> Tensor:
    """Product of the two where both are positive, and something <= 0 elsewhere; `gain` is overwritten."""
    return gain.clamp_(min=0).mul_(drop)


def _ceiling(x: Tensor, y: Tensor, both: Tensor, lean: Tensor) -> Tensor:
    """Bound of x' * y' for all x' <= x, y' <= y with lean * x' + y' / lean <= both; 0 where x or y is not positive.

    On the line lean * x' + y' / lean = both, the product is largest where the two terms are equal, or else as near
    to that as x and y allow.
    """
    x_most, y_most, half = x * lean, y / lean, both / 2
    # each from the limits, not one from the other: a small term would be lost in the difference
    x_term = half.maximum(both - y_most).minimum(x_most)
    y_term = half.maximum(both - x_most).minimum(y_most)
    return torch.where((x > 0) & (y > 0), x_term * y_term * (1 + SLACK), 0)


def _leaning(x: Tensor, y: Tensor) -> Tensor:
    """The `lean` for which lean * x = y / lean: there `_ceiling` is tight for pairs that add up to (x, y)."""
    tiny = torch.finfo(x.dtype).tiny
    return (y.clamp(min=tiny) / x.clamp(min=tiny)).sqrt().clamp(1e-30, 1e30)


def _may_win(gain: Tensor, drop: Tensor) -> Tensor:
    """(n, D) bool: with the best of partners, the pixel could reach the score of one good pair of the image.

    The best of partners has the image's largest gain and drop, and, since 2 sqrt(x y) <= lean * x + y / lean, its
    largest lean * gain + drop / lean; `lean` is the one for which the good pair attains that bound.
    """
    x, y = gain.amax(dim=1, keepdim=True), drop.amax(dim=1, keepdim=True)
    lean = _leaning(x, y)
    # the good pair: a pixel far out, with the best partner for it
    one = _weighted(gain, drop, lean).max(dim=1, keepdim=True).indices
    x_pair, y_pair = gain + gain.gather(1, one), drop + drop.gather(1, one)
    known, other = x_pair.clamp(min=0).mul_(y_pair).scatter_(1, one, 0).max(dim=1, keepdim=True)
    lean = torch.where(known > 0, _leaning(x_pair.gather(1, other), y_pair.gather(1, other)), lean)
    both = _weighted(gain, drop, lean)
    needed = 2 * known.sqrt() - both.amax(dim=1, keepdim=True) - SLACK * (x * lean + y / lean)
    return (gain > -x) & (drop > -y) & (both >= needed) & ((gain + x).mul_(drop + y) >= known)


def _weighted(gain: Tensor, drop: Tensor, lean: Tensor) -> Tensor:
    """Sum lean * gain + drop / lean; not fused, so that no value depends on its place in memory."""
    return (gain * lean).add_(drop * lean.reciprocal())


def _two_fronts(drop: Tensor) -> Tensor:
    """(n, D) bool, for columns in order of falling gain: in one of the first two Pareto fronts."""
    kept = torch.zeros_like(drop, dtype=torch.bool)
    for _ in range(2):
        rest = drop.masked_fill(kept, NEVER)
        before = F.pad(rest.cummax(dim=1).values[:, :-1], (1, 0), value=NEVER)
        kept = kept | (rest > before)
    return kept


def _compact(kept: Tensor, gain: Tensor, drop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The kept columns of each row moved left: their numbers, gains and drops, each (n, width >= 1).

    Rows with fewer than the widest end in the number D, one past the last column, out of reach.
    """
    size = kept.shape[1]
    width = max(1, int(kept.sum(dim=1).max()))
    chosen = torch.full((len(kept), width), size, device=kept.device)
    row, column = kept.nonzero(as_tuple=True)
    chosen[row, kept.cumsum(dim=1)[row, column] - 1] = column
    gain, drop = (F.pad(values, (0, 1), value=NEVER).gather(1, chosen) for values in (gain, drop))
    return chosen, gain, drop


def _best_of_tiles(gain: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
    """Best pair of columns (n, 2) and its score (n,), 0 where none qualifies; columns in order of falling gain.

    Columns are cut into runs of `SIDE`; a tile of the table is one run against another, and bounded by what the
    largest of the runs add up to (`_ceiling`). Tiles are taken in order of their bounds, until these do not exceed
    the best score so far: at worst half the table, of which little is held at a time. The first of equals wins.
    """
    runs = F.pad(torch.stack([gain, drop], dim=1), (0, -gain.shape[1] % SIDE), value=NEVER)
    runs = runs.unflatten(2, (-1, SIDE)).transpose(1, 2)  # (n, runs, 2, SIDE)
    first, second = torch.triu_indices(runs.shape[1], runs.shape[1], device=gain.device)
    bound, order = _bounds(runs, first, second).sort(dim=1, descending=True, stable=True)
    top, tile = torch.zeros_like(bound[:, 0]), torch.zeros_like(order[:, 0])
    rows, done = torch.arange(len(gain), device=gain.device), 0
    while len(rows):
        count = max(1, _at_once(gain) // (len(rows) * SIDE**2))
        tiles = order[rows, done : done + count]
        score, place = _table(runs, rows, first[tiles], second[tiles]).amax(dim=(2, 3)).max(dim=1)
        better = score > top[rows]
        tile[rows[better]] = tiles.gather(1, place[:, None]).squeeze(1)[better]
        top[rows[better]] = score[better]
        done += count
        rows = rows[bound[rows, done] > top[rows]] if done < bound.shape[1] else rows[:0]
    first, second = first[tile, None], second[tile, None]
    table = _table(runs, torch.arange(len(gain), device=gain.device), first, second)
    place = table.flatten(1).argmax(dim=1, keepdim=True)
    return torch.cat([first * SIDE + place // SIDE, second * SIDE + place % SIDE], dim=1), top


def _bounds(runs: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(n, tiles): what no score in the tiles of runs `first` against `second` exceeds."""
    gain, drop = runs[:, :, 0], runs[:, :, 1]
    most_gain, most_drop = gain.amax(dim=2), drop.amax(dim=2)
    x, y = most_gain[:, first] + most_gain[:, second], most_drop[:, first] + most_drop[:, second]
    corner = _score(x.clone(), y).argmax(dim=1, keepdim=True)
    lean = _leaning(x.gather(1, corner), y.gather(1, corner))
    most = _weighted(gain, drop, lean[..., None]).amax(dim=2)
    slack = SLACK * _weighted(most_gain.amax(dim=1, keepdim=True), most_drop.amax(dim=1, keepdim=True), lean)
    return _ceiling(x, y, most[:, first] + most[:, second] + slack, lean)


def _table(runs: Tensor, rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Scores (r, k, SIDE, SIDE) of k tiles of each of the images `rows`, of runs `first` <= `second`, (r, k) each.

    A pair counts once, and a column with itself not at all.
    """
    sums = runs[rows[:, None], first][..., :, None] + runs[rows[:, None], second][..., None, :]
    table = _score(sums[:, :, 0], sums[:, :, 1])
    same = first == second
    if same.any():
        table[same] = table[same].triu(1)
    return table


def _at_once(like: Tensor) -> int:
    """Numbers to work on at once on the device of a tensor."""
    return AT_ONCE if like.device.type == "cpu" else 64 * AT_ONCE
