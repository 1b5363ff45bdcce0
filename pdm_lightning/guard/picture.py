"""Image files of strangers: read with limits, or refused in one line."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from pdm_lightning.guard.preprocessing import Preprocessing

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Pillow's readers that are used; its others include one that starts a PostScript interpreter."""
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
MOST_PIXELS = 178_000_000
"""Above it Pillow itself refuses an image."""
MOST_SCANS = 100
"""Of a JPEG: usual ones have ten at most, and each passes over all pixels however few bytes it has."""
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class ImageError(ValueError):
    """An image that cannot be read, or is too large to be read safely."""


@dataclass(frozen=True)
class Limits:
    """What an image file may ask for.

    Parameters
    ----------
    pixels : int
        Width times height; the header tells them before anything is decoded.
    bytes : int
        Of the file.

    Raises
    ------
    ValueError
        Unless 1 <= pixels <= 178,000,000 and bytes >= 1.
    """

    pixels: int = 64_000_000
    bytes: int = 256_000_000

    def __post_init__(self) -> None:
        if not 1 <= self.pixels <= MOST_PIXELS or self.bytes < 1:
            raise ValueError(f"limits: 1 to {MOST_PIXELS} pixels and at least 1 byte, got {self}")


class Room:
    """Room for so many pixels, shared by all threads; what is larger has it alone."""

    def __init__(self, pixels: int) -> None:
        self.whole = self.free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait until there is room, and keep it within the block."""
        taken = min(pixels, self.whole)
        with self._changed:
            self._changed.wait_for(lambda: self.free >= taken)
            self.free -= taken
        try:
            yield
        finally:
            with self._changed:
                self.free += taken
                self._changed.notify_all()


_IN_FLIGHT = Room(2 * Limits.pixels)
"""Pixels that are decoded at a time: with four bytes each, and a copy, 1 GiB however many threads there are."""


def read_image(path: str | Path, preprocessing: Preprocessing, limits: Limits | None = None) -> Tensor:
    """Read one image file: uint8 (C, H, W).

    Raises
    ------
    ImageError
        For what is no regular file, no image of a known format, damaged, or beyond the limits; the message does not
        repeat the path.
    """
    limits = limits or Limits()
    raw = _content(path, limits)
    if raw.startswith(b"\xff\xd8") and _too_many_scans(raw):
        raise ImageError(f"a JPEG of more than {MOST_SCANS} scans")
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            width, height = image.size
            if width * height > limits.pixels:
                raise ImageError(f"{width} x {height} pixels, {limits.pixels} allowed (--max-pixels)")
            with _IN_FLIGHT.take(width * height):
                image.load()
                return preprocessing(image)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("it does not fit into memory") from None
    except Exception as error:  # each of Pillow's readers has errors of its own for damaged files
        raise ImageError(_told(error)) from error


def _content(path: str | Path, limits: Limits) -> bytes:
    """Bytes of a regular file: a pipe or a device would be waited for for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise ImageError(getattr(error, "strerror", None) or "no name of a file") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("no regular file")
        if found.st_size > limits.bytes:
            raise ImageError(f"{found.st_size} bytes, {limits.bytes} allowed")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limits.bytes)
    except OSError as error:
        raise ImageError(error.strerror or "it cannot be read") from error
    finally:
        os.close(descriptor)


def _too_many_scans(raw: bytes) -> bool:
    """Walk over the segments of a JPEG as its decoder does: what lies in one, or after the end, does not count."""
    count, place = 0, 2
    while count <= MOST_SCANS and (found := _MARKER.search(raw, place)):
        place, marker = found.end(), raw[found.end() - 1]
        if marker == 0xD9:
            break
        count += marker == 0xDA
        # markers below 0xC0 have no length that a decoder which looks for its next restart would believe
        place += int.from_bytes(raw[place : place + 2], "big") if marker >= 0xC0 and marker != 0xD8 else 0
    return count > MOST_SCANS


def _told(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MOST_PIXELS} pixels"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"no image of a known format ({', '.join(FORMATS)})"
    text = " ".join(str(error).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text[:200] or type(error).__name__
