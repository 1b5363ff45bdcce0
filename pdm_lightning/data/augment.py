"""Batched augmentation on the device: pad and random crop, horizontal flip."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def check_augment(augment: Mapping[str, object] | None) -> tuple[int, bool]:
    """Read ``{"crop": pixels, "flip": bool}``, both optional, None for nothing.

    Returns
    -------
    tuple
        ``(crop, flip)``.

    Raises
    ------
    ValueError
        For an unknown key or a value out of range.
    """
    given = dict(augment or {})
    crop, flip = given.pop("crop", 0), given.pop("flip", False)
    if given:
        raise ValueError(f"unknown augmentation {sorted(given)}: data.augment knows crop and flip")
    if isinstance(crop, bool) or not isinstance(crop, int) or crop < 0:
        raise ValueError(
            f"data.augment.crop={crop!r}: the padding must be a whole number of pixels, 0 or more"
        )
    if not isinstance(flip, bool):
        raise ValueError(f"data.augment.flip={flip!r}: take true or false")
    return crop, flip


def crop_and_flip(images: Tensor, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Pad by ``crop`` black pixels a side, cut a random window of the old size, flip half of the images.

    Every image draws its own window and flip. The draws are made on the CPU, so that they are the same on
    every device.

    Parameters
    ----------
    images
        Any dtype, shape (N, C, H, W), on any device.
    crop
        Padding in pixels; the window moves by -crop..crop in both directions.
    flip
        Whether to mirror each image left to right with probability 1/2.
    generator
        CPU generator that every draw comes from.

    Returns
    -------
    Tensor
        As ``images``.
    """
    if not crop and not flip:
        return images
    n, _, height, width = images.shape
    top, left = torch.randint(2 * crop + 1, (2, n), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5 if flip else torch.zeros(n, dtype=torch.bool)
    rows = top[:, None] + torch.arange(height)
    columns = (
        torch.where(mirrored[:, None], torch.arange(width - 1, -1, -1), torch.arange(width)) + left[:, None]
    )
    rows, columns = rows.to(images.device), columns.to(images.device)
    which = torch.arange(n, device=images.device)[:, None, None]
    padded = F.pad(images, (crop, crop, crop, crop))
    # channels last while indexing: the three index tensors stand together and give (N, H, W, C)
    return (
        padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
        .permute(0, 3, 1, 2)
        .contiguous()
    )
