"""One detector against several attacks on the same images: its mean AUC."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from detection.evaluate import Scores, auc, sides
from detection.intervals import Interval
from detection.resampling import Array, percentiles, resampled, weighted_auc


def mean_auc(
    runs: Sequence[tuple[Tensor, Scores, Scores]],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of the AUCs of several attacks, with the interval of that mean over images.

    Images are drawn once a resample, for all attacks: what makes an image hard under one attack makes it hard under
    the others, so that their AUCs move together and the mean is less certain than it would be otherwise. An attack
    takes of a resample the images that it has pairs of.

    Parameters
    ----------
    runs : sequence of (Tensor, Tensor or ndarray, Tensor or ndarray)
        For each attack the (N,) int64 numbers of its images, each once, and the (N,) finite scores of these clean
        and adversarial.
    resamples, level, seed : int, float, int
        Of the percentile bootstrap.

    Returns
    -------
    Interval
        n is the smallest number of pairs of an attack.

    Raises
    ------
    ValueError
        Without attacks, or for scores as in `detection.evaluate.bootstrap_auc`.
    """
    if not runs:
        raise ValueError("no attacks: a mean needs at least one")
    images = torch.cat([index for index, _, _ in runs]).unique()
    rows, statistics, values = [], [], []
    for index, clean, adversarial in runs:
        pair = sides(clean, adversarial, paired=True)
        rows.append(torch.searchsorted(images, index).numpy())
        statistics.append(weighted_auc(*pair))
        values.append(auc(*pair))

    def mean(drawn: Array, same: Array) -> Array:
        total = np.zeros(len(drawn))
        for places, statistic in zip(rows, statistics, strict=True):
            mine = drawn[:, places]
            # the statistic takes as many draws as there are pairs for granted; here that number is chance
            total += statistic(mine, mine) * (len(places) / np.maximum(mine.sum(axis=1), 1)) ** 2
        return total / len(rows)

    rng = np.random.default_rng(seed)
    drawn = resampled(mean, len(images), len(images), True, resamples, rng)
    n = min(len(places) for places in rows)
    return Interval(math.fsum(values) / len(values), *percentiles(drawn, level), n)
