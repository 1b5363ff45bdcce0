"""How far adversarial images lie from their originals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from detection.intervals import Interval
from detection.means import mean_interval


@dataclass(frozen=True)
class Distortion:
    """Distances d = ||x' - x||_2 / sqrt(H W C): the root mean square change over an image's numbers.

    Attributes
    ----------
    mean : Interval
        With its 95 % percentile bootstrap interval, None for a single distance; n counts the distances.
    q25, median, q75 : float or None
        Quartiles, interpolated linearly; None where there is no distance.
    """

    mean: Interval
    q25: float | None
    median: float | None
    q75: float | None


def distortion(l2: Tensor, pixels: int, *, resamples: int = 1000, seed: int = 0) -> Distortion:
    """Summarise the distortions of an attack's successes.

    Parameters
    ----------
    l2 : Tensor
        (N,) finite Euclidean distances >= 0 of adversarial images from their originals.
    pixels : int
        H W C, the numbers that an image holds, >= 1.
    resamples, seed : int
        Of the bootstrap of the mean.

    Returns
    -------
    Distortion
        With N = 0 every value is None.

    Raises
    ------
    ValueError
        For distances that are negative or not finite, or fewer than one pixel.
    """
    values = l2.detach().cpu().double().numpy()
    if pixels < 1 or values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(
            f"distances must be (N,), finite and not negative, and pixels >= 1, got pixels={pixels}"
        )
    if len(values) == 0:
        return Distortion(Interval(None, None, None, 0), None, None, None)
    values = values / math.sqrt(pixels)
    q25, median, q75 = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    return Distortion(mean_interval(values, resamples=resamples, seed=seed), q25, median, q75)
