"""From an image of any size and mode to the pixels that the classifier takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pdm_lightning.guard.checks import one_of, record, whole

RULES = ("stretch", "crop")
MAX_SIDE = 1024
SHARE = 0.875
"""Of the shorter side, what the crop keeps: 224 of 256 pixels, as classifiers of ImageNet are tested."""
AT_ONCE = 2**20
"""Pixels of 16 bits that become 8 bits at a time: 8 MiB for each step of it."""
GREY = frozenset({"1", "L", "LA", "La"})
_FIELDS = record(
    height=whole(1, MAX_SIDE), width=whole(1, MAX_SIDE), channels=whole(1, 4), resize=one_of(RULES)
)


@dataclass(frozen=True)
class Preprocessing:
    """Size, channels and the rule of resizing.

    Parameters
    ----------
    height, width : int
        Pixels, 1 to 1024.
    channels : int
        1 (grey) or 3 (RGB) for image files; tensors may have up to 4.
    resize : str
        "stretch": bilinear to the size, without keeping the aspect ratio (as data=image_folder does). "crop": the
        shorter side to size / 0.875, then the middle (as classifiers of ImageNet are tested).

    Raises
    ------
    GuardFileError
        For values outside these ranges.
    """

    height: int
    width: int
    channels: int
    resize: str = "stretch"

    def __post_init__(self) -> None:
        _FIELDS(asdict(self), "preprocessing")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def __call__(self, image: Image.Image) -> Tensor:
        """Give the uint8 pixels (C, H, W) of an image with 8 or 16 bits a channel, of any Pillow mode.

        Transparency is dropped, palettes and CMYK become RGB, 16 bits become 8; of an animation the first frame
        counts, and rotation tags do not.

        Raises
        ------
        ValueError
            For floating-point pixels, which have no agreed range, and for channels other than 1 or 3.
        """
        if self.channels not in (1, 3):
            raise ValueError(
                f"image files have 1 or 3 channels, this guard takes {self.channels}: give tensors"
            )
        shown = eight_bits(image).convert("RGB" if self.channels == 3 else "L")
        shown = self._cropped(shown) if self.resize == "crop" else self._stretched(shown)
        array = np.array(shown)  # a copy: Pillow's own is read-only
        return torch.from_numpy(
            np.ascontiguousarray(array[None] if self.channels == 1 else array.transpose(2, 0, 1))
        )

    def _stretched(self, image: Image.Image) -> Image.Image:
        if image.size == (self.width, self.height):
            return image
        return image.resize((self.width, self.height), Image.Resampling.BILINEAR)

    def _cropped(self, image: Image.Image) -> Image.Image:
        """The largest part of the wanted aspect ratio in the middle, less the border, resized in one step."""
        scale = SHARE * min(image.width / self.width, image.height / self.height)
        wide, high = self.width * scale, self.height * scale
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        box = (left, top, left + wide, top + high)
        return image.resize((self.width, self.height), Image.Resampling.BILINEAR, box=box)


def eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16 bits a channel down to 8; other images are given back as they are.

    Raises
    ------
    ValueError
        For whole numbers beyond 16 bits and for floating-point pixels.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    if image.mode.startswith("F"):
        raise ValueError("floating-point pixels have no agreed range: convert the image to 8 bits")
    pixels = np.asarray(image)
    found = np.empty(pixels.shape, np.uint8)
    rows = max(1, AT_ONCE // max(1, image.width))
    for top in range(0, image.height, rows):
        part = pixels[top : top + rows].astype(np.int64)
        if part.size and not 0 <= int(part.min()) <= int(part.max()) <= 65535:
            raise ValueError("pixels beyond 16 bits: convert the image to 8 bits")
        found[top : top + rows] = (part + 128) // 257
    return Image.fromarray(found)
