"""Images of all formats and modes, and what becomes of them when bytes and headers are changed."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
from PIL import Image

from tests.integration.mutants import extend, flip, overwrite, truncate


def samples() -> dict[str, bytes]:
    """One image of each format and mode, by ``FORMAT mode``."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (24, 20)).astype(np.uint16))
    modes = {
        "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
        "JPEG": ["L", "RGB", "CMYK"],
        "BMP": ["1", "L", "P", "RGB"],
        "GIF": ["L", "P"],
        "PPM": ["1", "L", "RGB"],
        "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"],
        "WEBP": ["RGB", "RGBA"],
    }
    found = {}
    for form, names in modes.items():
        for mode in names:
            image = deep if mode == "I;16" else rgb.convert(mode)
            found[f"{form} {mode}"] = _saved(image, form)
    found["GIF animated"] = _saved(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)] * 3)
    found["PNG animated"] = _saved(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)])
    found["TIFF lzw"] = _saved(rgb, "TIFF", compression="tiff_lzw")
    found["PNG interlaced"] = _saved(rgb, "PNG", optimize=True)
    return found


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def flip_start(raw: bytes, rng: random.Random) -> bytes:
    return flip(raw, rng, 64)


def splice(raw: bytes, rng: random.Random) -> bytes:
    """A piece of the file a second time, somewhere."""
    start, place = rng.randrange(len(raw)), rng.randrange(len(raw))
    return raw[:place] + raw[start : start + rng.randrange(1, 512)] + raw[place:]


def huge(raw: bytes, rng: random.Random) -> bytes:
    """A header that promises very many pixels, its own checksum mended."""
    side = rng.choice((0, 1, 65_535, 65_000, 100_000, 2**31 - 1, 2**16))
    other = rng.choice((1, side, 65_535))
    if raw.startswith(b"\x89PNG"):
        told = b"IHDR" + struct.pack(">II", side, other) + raw[24:29]
        return raw[:12] + told + struct.pack(">I", zlib.crc32(told)) + raw[33:]
    if raw.startswith(b"BM"):
        return raw[:18] + struct.pack("<ii", side, min(other, 2**31 - 1)) + raw[26:]
    if raw.startswith(b"GIF"):
        return raw[:6] + struct.pack("<HH", min(side, 65_535), min(other, 65_535)) + raw[10:]
    if raw[:1] == b"P" and raw[1:2].isdigit():
        return raw[:2] + f"\n{side} {other}\n".encode() + raw.split(b"\n", 2)[-1]
    return flip(raw, rng, 200)


MUTATIONS = (flip, flip_start, truncate, extend, overwrite, splice, huge)
