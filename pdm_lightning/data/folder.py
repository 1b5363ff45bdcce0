"""Any folder of images: ``train/<class>/*`` and ``test/<class>/*``."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import torch
from torch import Tensor

from pdm_lightning.data.base import ImageData, reads_files
from pdm_lightning.data.decode import SUFFIXES, Listing, read_images
from pdm_lightning.data.sources import Size, cut_validation

# formats whose files of one shape all have one size
UNCOMPRESSED = frozenset({".bmp", ".pgm", ".ppm", ".tif", ".tiff"})
TREE = "train/<class>/<image> and test/<class>/<image>"


def tree_listing(root: str | Path) -> Listing:
    """Sorted (relative path, stamp) of every image under ``root/train`` and ``root/test``.

    The stamp is the size in bytes; for formats that do not compress, a number made of the size and a checksum.

    Raises
    ------
    FileNotFoundError
        If a folder is missing or has no images; the message shows the tree that is expected.
    """
    return [entry for split in ("train", "test") for entry in _split_listing(Path(root), split)]


@reads_files(tree_listing)
def image_folder(
    root: str | Path,
    name: str | None = None,
    size: Size = None,
    channels: int | None = None,
    val_size: int | float = 0.1,
    split_seed: int = 0,
    cache: str | Path | None = None,
) -> ImageData:
    """Images in ``root/train/<class>/*`` and ``root/test/<class>/*``; validation is cut from train.

    Classes are the folders' names, in numeric order where all are whole numbers, else in alphabetic order.
    Files that are no images by their suffix are passed over. Images of another size are resized bilinearly,
    without keeping their aspect ratio.

    Parameters
    ----------
    root
        Folder that holds ``train`` and ``test``.
    name
        Name of the data set; None takes the folder's name.
    size
        Height and width in pixels, one number or two; None takes the most common size found.
    channels
        1 (grey) or 3 (RGB); None takes 3 where any image has colour, else 1.
    val_size
        Images cut from train for validation, stratified: a count, or a fraction below 1.
    split_seed
        Seed of the validation cut.
    cache
        Folder for the decoded images, so that a second reading takes a moment; None for no cache.

    Raises
    ------
    FileNotFoundError
        If train or test is missing or empty.
    ValueError
        If train and test have different classes, or a file cannot be read as an image.
    """
    base = Path(root)
    listing = tree_listing(base)
    classes = _classes(base, listing)
    images = read_images(base, listing, size, channels, cache)
    labels = _labels(listing, classes)
    boundary = sum(path.startswith("train/") for path, _ in listing)
    train, validation = cut_validation((images[:boundary], labels[:boundary]), val_size, split_seed)
    test = (images[boundary:], labels[boundary:])
    return ImageData(name or base.resolve().name, train, validation, test, classes)


def _split_listing(root: Path, split: str) -> Listing:
    """The images of one split, sorted by path."""
    folder = root / split
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder '{folder}': data.root must hold {TREE}")
    found = []
    for group in sorted(entry.name for entry in os.scandir(folder) if _visible_folder(entry)):
        images = [e for e in os.scandir(folder / group) if _is_image(e)]
        if not images:
            raise FileNotFoundError(
                f"no images in '{folder / group}': remove the folder, or fill it ({TREE})"
            )
        found += [(f"{split}/{group}/{e.name}", _stamp(e)) for e in images]
    if not found:
        raise FileNotFoundError(f"no class folders in '{folder}': data.root must hold {TREE}")
    return sorted(found)


def _stamp(entry: os.DirEntry[str]) -> int:
    """Tell an image from another one of its name: by its size, and in an uncompressed format by its bytes too."""
    size = entry.stat().st_size
    if Path(entry.name).suffix.lower() not in UNCOMPRESSED:
        return size
    return size << 32 | zlib.crc32(Path(entry.path).read_bytes())


def _visible_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _is_image(entry: os.DirEntry[str]) -> bool:
    # macOS leaves "._name.jpg" beside name.jpg on foreign disks
    return Path(entry.name).suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()


def _classes(root: Path, listing: Listing) -> list[str]:
    """The class names, in order; ValueError where train and test have different ones."""
    names: dict[str, set[str]] = {"train": set(), "test": set()}
    for path, _ in listing:
        split, group, _ = path.split("/", 2)
        names[split].add(group)
    alone = sorted(names["train"] ^ names["test"])
    if alone:
        raise ValueError(
            f"classes of train and test differ under '{root}': only one of the two has {', '.join(alone)}; "
            "give each class a folder in both"
        )
    numeric = all(name.isdecimal() for name in names["train"])
    return sorted(names["train"], key=lambda name: (int(name) if numeric else 0, name))


def _labels(listing: Listing, classes: list[str]) -> Tensor:
    index = {name: label for label, name in enumerate(classes)}
    return torch.tensor([index[path.split("/", 2)[1]] for path, _ in listing])
