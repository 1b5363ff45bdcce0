"""How many images a data set has, and of which shape, without reading it where that is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pdm_lightning.data import ImageData
from pdm_lightning.data.sources import DIGITS_TEST, pair

Load = Callable[[dict[str, Any]], ImageData]

#: torchvision's sets: images to train and validate, test images, classes, channels, pixels a side.
TORCHVISION = {
    "mnist": (60_000, 10_000, 10, 1, 28),
    "fashion_mnist": (60_000, 10_000, 10, 1, 28),
    "kmnist": (60_000, 10_000, 10, 1, 28),
    "svhn": (73_257, 26_032, 10, 3, 32),
    "cifar10": (50_000, 10_000, 10, 3, 32),
    "cifar100": (50_000, 10_000, 100, 3, 32),
}
DIGITS = (1797 - DIGITS_TEST, DIGITS_TEST, 10, 1, 8)


@dataclass(frozen=True)
class Sizes:
    """Of a data set.

    Attributes
    ----------
    train, test, classes : int
        Training images (without those for validation), test images, and classes.
    shape : tuple of int
        (C, H, W) of an image.
    """

    train: int
    test: int
    classes: int
    shape: tuple[int, int, int]


def sizes(data: Mapping[str, Any], load: Load) -> Sizes | None:
    """Sizes of the data set of a configuration; None where it is not there, and nothing is downloaded to know them.

    Parameters
    ----------
    data : mapping
        As in ``conf/data``. The sets that are the same everywhere are not read.
    load : callable
        Reads any other one.
    """
    if (known := same_everywhere(data)) is not None:
        return known
    try:
        found = load({**data, "download": False} if data.get("download") else dict(data))
    except (FileNotFoundError, ValueError):
        return None
    return Sizes(len(found.train[1]), len(found.test[1]), found.num_classes, found.shape)


def same_everywhere(data: Mapping[str, Any]) -> Sizes | None:
    """Sizes of a data set that is the same everywhere, digits or one of torchvision's; None for any other."""
    if (known := _known(data)) is None:
        return None
    total, test, classes, channels, side = known
    cut = data.get("val_size", 0)
    train = total - (round(cut * total) if 0 < cut < 1 else int(cut))
    height, width = (side, side) if data.get("size") is None else pair(data["size"])
    return Sizes(train, test, classes, (data.get("channels") or channels, height, width))


def _known(data: Mapping[str, Any]) -> tuple[int, int, int, int, int] | None:
    if data["_target_"] == "pdm_lightning.data.digits":
        return DIGITS
    if data["_target_"] == "pdm_lightning.data.torchvision_dataset":
        return TORCHVISION.get(str(data.get("dataset")))
    return None
