"""The images of several attacks, and the balls that they have to lie in."""

from __future__ import annotations

import torch
from torch import Tensor

# float32 distances of images that were projected onto a ball exceed its radius by rounding
ROUNDING = 1e-5
"""By how much a distance may exceed a radius, relative and absolute."""


def inside(distance: Tensor, eps: float) -> Tensor:
    """(N,) bool: is a distance within the radius, up to rounding?"""
    return distance <= eps * (1 + ROUNDING) + ROUNDING


def places(index: Tensor, images: Tensor) -> Tensor:
    """Where images stand in an index that holds each of them once: ``index[places(index, images)]`` are the images."""
    order = index.argsort()
    return order[torch.searchsorted(index[order], images)]
