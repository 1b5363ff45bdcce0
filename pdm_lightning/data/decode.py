"""Decoding many image files into one tensor: threads, progress, one line for a bad file, and a cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pdm_lightning.data.sources import Size, check_channels, pair
from pdm_lightning.progress import Progress

Listing = list[tuple[str, int]]
Answer = TypeVar("Answer")

#: Suffixes of files that count as images.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
#: Pillow's modes of grey images.
GREY = frozenset({"1", "L", "LA", "La"})


class Format(NamedTuple):
    """What every decoded image looks like."""

    channels: int
    height: int
    width: int


def find_format(root: Path, listing: Listing, size: Size, channels: int | None) -> Format:
    """The asked size and channels; where None, the most common size, and RGB if any image has colour.

    Of equally common sizes the smallest is taken. Only the headers of the files are read.
    """
    check_channels(channels)
    if size is not None and channels is not None:
        return Format(channels, *pair(size))
    sizes: Counter[tuple[int, int]] = Counter()
    coloured = False
    for (width, height), grey in _in_threads(
        lambda path: _header(root / path), listing, "reading image headers"
    ):
        sizes[height, width] += 1
        coloured |= not grey
    common = min(sizes, key=lambda s: (-sizes[s], s))
    return Format(channels or (3 if coloured else 1), *(pair(size) if size is not None else common))


def read_images(
    root: Path, listing: Listing, size: Size, channels: int | None, cache: str | Path | None
) -> Tensor:
    """Decode the listed images, or take them from the cache folder where they were decoded before.

    The cache is keyed by the names and sizes of the files, and the size and channels asked for; a damaged
    cache file is made anew. See `find_format` for what None means.

    Returns
    -------
    Tensor
        uint8, shape (N, C, H, W).
    """
    if cache is None:
        return decode(root, listing, find_format(root, listing, size, channels))
    told = json.dumps([listing, size and pair(size), channels]).encode()
    path = Path(cache) / f"{hashlib.sha256(told).hexdigest()[:16]}.safetensors"
    images = _cached(path, len(listing))
    if images is None:
        images = decode(root, listing, find_format(root, listing, size, channels))
        _keep(images, path)
    return images


def decode(root: Path, listing: Listing, fmt: Format) -> Tensor:
    """Decode the listed images in threads; uint8, shape (N, C, H, W).

    Raises
    ------
    ValueError
        If a file cannot be read as an image of 8 bits a channel (the message names it), or the images do not
        fit into this machine's memory.
    """
    _check_memory(len(listing), fmt)
    images = np.empty((len(listing), *fmt), np.uint8)
    arrays = _in_threads(lambda path: _array(root / path, fmt), listing, "decoding images")
    for index, array in enumerate(arrays):
        images[index] = array
    return torch.from_numpy(images)


def _header(path: Path) -> tuple[tuple[int, int], bool]:
    """((width, height), whether grey) of one file."""
    with _opened(path) as image:
        return image.size, image.mode in GREY


def _array(path: Path, fmt: Format) -> np.ndarray:
    """One image, uint8 (C, H, W)."""
    with _opened(path) as image:
        try:
            shown = image.convert("RGB" if fmt.channels == 3 else "L")
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"cannot decode '{path}' ({error}): repair or remove the file") from error
    if shown.size != (fmt.width, fmt.height):
        shown = shown.resize((fmt.width, fmt.height), Image.Resampling.BILINEAR)
    array = np.asarray(shown)
    return array[None] if fmt.channels == 1 else array.transpose(2, 0, 1)


def _opened(path: Path) -> Image.Image:
    """The image, its header read; ValueError names the file that fails or has over 8 bits a channel."""
    try:
        image = Image.open(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read '{path}' as an image: repair or remove the file") from error
    if image.mode.startswith(("I", "F")):
        # Pillow would clip these to white instead of scaling them
        image.close()
        raise ValueError(f"'{path}' has more than 8 bits a channel: convert it to an 8-bit image")
    return image


def _in_threads(work: Callable[[str], Answer], listing: Listing, description: str) -> Iterator[Answer]:
    """``work(path)`` of every listed path, in order, with progress; Pillow decodes without the GIL."""
    paths = [path for path, _ in listing]
    # a thread takes 64 files at a time: handing over one small file costs more than decoding it
    chunks = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool, Progress(len(paths), description) as progress:
        # a few chunks a thread, so that an error ends the work soon and answers do not pile up
        for start in range(0, len(chunks), 4 * workers):
            for answers in pool.map(
                lambda chunk: [work(p) for p in chunk], chunks[start : start + 4 * workers]
            ):
                yield from answers
                progress.update(len(answers))


def _cached(path: Path, count: int) -> Tensor | None:
    """The images of a cache file; None where there is none, or it is damaged."""
    try:
        images = load_file(path)["images"]
    except (OSError, KeyError, SafetensorError):
        return None
    return images if len(images) == count else None


def _keep(images: Tensor, path: Path) -> None:
    """Write a cache file; another process may be reading or writing the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file({"images": images}, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _check_memory(count: int, fmt: Format) -> None:
    """ValueError where the decoded images, and their copies while the splits are cut, exceed the memory."""
    needed = 2 * count * fmt.channels * fmt.height * fmt.width
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > available:
        raise ValueError(
            f"{count} images of {fmt.height}x{fmt.width} need {needed / 2**30:.0f} GiB of memory, "
            f"this machine has {available / 2**30:.0f}: take a smaller data.size, such as data.size=32"
        )
