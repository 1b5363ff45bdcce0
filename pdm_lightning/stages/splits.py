"""Stage ``splits``: do training, validation and test set share images?"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pdm_lightning.data import to_unit
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Count test images that are, pixel by pixel, also images of another set.

    ``splits.json``: ``train``, ``validation`` and ``test``, their sizes; ``shared_train`` and ``shared_validation``,
    test images that the set holds as well; ``validation_in_train``, validation images that are training images.
    """
    data = context.data(node.parents["features"])
    train, validation, test = (hashes(part[0]) for part in (data.train, data.validation, data.test))
    sizes = {"train": len(train), "validation": len(validation), "test": len(test)}
    shared = {
        "shared_train": _shared(test, train),
        "shared_validation": _shared(test, validation),
        "validation_in_train": _shared(validation, train),
    }
    write_json(folder / "splits.json", sizes | shared)


def hashes(images: Tensor) -> list[bytes]:
    """SHA-256 of each image's pixels in [0, 1], (N, C, H, W) of any type that a data set may have."""
    return [hashlib.sha256(to_unit(image).numpy().tobytes()).digest() for image in images]


def _shared(some: list[bytes], others: list[bytes]) -> int:
    known = set(others)
    return sum(one in known for one in some)
