"""Kernel density of directions: the embedding scaled to length 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detection import mapped
from detection.kde import KDE
from detection.neighbours import unit


class UnitKDE(KDE):
    """Score = -log density of the embedding's direction under those of its *predicted* class.

    A `KDE` of embeddings that are scaled to length 1, training, validation and scored ones alike: their length, which
    losses that shrink a class change most, says nothing. The gradient goes through the scaling.

    All are scaled in float64, and kernels are kept in it: rounded to the features' own dtype they would be other ones.

    Parameters
    ----------
    bandwidth : {"validation", "loo", "nn_median"} or float
        Rule (see `detection.bandwidth`) or a number > 0 in units of vectors of length 1.
    kernels_per_class : int
        Kernels per class; a class with fewer training images gives all of them.
    layer : str
        The layer whose density is estimated: "embedding", "logits" or the name of a submodule.
    bandwidth_scale : float
        > 0, multiplies the bandwidth that rule or number give: for sweeps around a rule.
    seed : int
        Seed of the draw; class c's kernels depend on (seed, c) alone.

    Attributes
    ----------
    bandwidth_ : float
        The bandwidth in use, after `fit` or `load_state_dict`.

    Raises
    ------
    ValueError
        For hyper-parameters outside these ranges.
    """

    kernels_are = "directions"

    def _placed(self, points: Tensor) -> Tensor:
        return unit(points)

    def _gather(self, points: Tensor, groups: Sequence[Tensor]) -> Tensor:
        rows = super()._gather(points, groups)
        found, stop = mapped.empty(tuple(rows.shape), torch.float64), 0
        for block in mapped.blocks(rows):
            start, stop = stop, stop + len(block)
            mapped.release(found[start:stop].copy_(unit(block.double())))
        return found.to(points.device)
