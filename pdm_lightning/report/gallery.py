"""Attacked images for the page: originals, their adversarial versions, and the differences, amplified."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: What all pictures of a page may take, in characters of the page.
BUDGET = 2_000_000
#: Pixels of the longer side above which a picture is made smaller.
LARGEST = 128


@dataclass(frozen=True)
class Example:
    """One attacked image beside its original.

    Attributes
    ----------
    original, adversarial : (H, W, C) array in [0, 1]
        C is 1 or 3.
    label, predicted : str
        The class, which the model got right before the attack, and the one that it takes the attacked image for.
    l2, linf : float
        How far apart the two are, in units of a pixel's range.
    score : float
        The detector's, of the attacked image; higher is more adversarial.
    threshold : float or None
        Above it an image is flagged; None where too few validation images were there for one.
    """

    original: np.ndarray
    adversarial: np.ndarray
    label: str
    predicted: str
    l2: float
    linf: float
    score: float
    threshold: float | None = None

    @property
    def outcome(self) -> str:
        """``flagged`` or ``not flagged`` at the threshold; ``no threshold``."""
        if self.threshold is None:
            return "no threshold"
        return "flagged" if self.score > self.threshold else "not flagged"

    @property
    def fooled(self) -> bool:
        """Whether the model takes the attacked image for another class."""
        return self.label != self.predicted


@dataclass(frozen=True)
class GalleryRow:
    """One defence's attacked images: one a test image of the gallery, None where it did not attack that one."""

    label: str
    examples: Sequence[Example | None]


@dataclass(frozen=True)
class Gallery:
    """The same test images under one attack, against each defence.

    Attributes
    ----------
    title, caption : str
    columns : sequence of (int, str)
        Of each test image: its number in the test set, and its class.
    rows : sequence of GalleryRow
    """

    title: str
    caption: str
    columns: Sequence[tuple[int, str]]
    rows: Sequence[GalleryRow]


def amplification(examples: Iterable[Example | None]) -> float:
    """The largest of ..., 0.5, 1, 2, 5, 10, ... by which no difference leaves the range of a pixel around grey.

    1 where nothing differs.
    """
    tops = [float(np.abs(e.adversarial - e.original).max()) for e in examples if e is not None]
    top = max(tops, default=0.0)
    if top == 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(0.5 / top))
    # a difference of exactly 0.05 is amplified by 10, whatever its last digit
    return max(step * power for step in (1, 2, 5, 10) if step * power * top <= 0.5 * (1 + 1e-6) or step == 1)


def difference(example: Example, factor: float) -> np.ndarray:
    """What the attack added, amplified, around middle grey: (H, W, C) in [0, 1]."""
    return np.clip(0.5 + factor * (example.adversarial - example.original), 0.0, 1.0)


def picture(image: np.ndarray) -> str:
    """An (H, W, C) image in [0, 1] as a PNG's data URI, not larger than `LARGEST` pixels a side."""
    from PIL import Image

    pixels = np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
    made = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    made.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    out = io.BytesIO()
    made.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def shown(galleries: Sequence[Gallery], budget: int = BUDGET) -> tuple[list[dict[str, Any]], str]:
    """The galleries as the page's template takes them, and a note of what was left out.

    Where their pictures are more than `budget` characters, every row shows fewer of them; where one each is still
    too much, the last galleries are left out.
    """
    made = [_shown(gallery) for gallery in galleries]
    asked = most = max((len(gallery["columns"]) for gallery in made), default=0)
    while most > 1 and sum(_size(gallery, most) for gallery in made) > budget:
        most -= 1
    kept: list[dict[str, Any]] = []
    for gallery in made:
        if sum(_size(other, most) for other in [*kept, gallery]) > budget:
            break
        kept.append(gallery)
    for gallery in kept:
        gallery["columns"] = gallery["columns"][:most]
        for row in gallery["rows"]:
            row["cells"] = row["cells"][:most]
    notes = []
    if most < asked:
        notes.append(f"{most} of {asked} images an attack are shown")
    if len(kept) < len(made):
        notes.append(f"{len(kept)} of {len(made)} attacks are shown")
    return kept, f"To keep the page small, {' and '.join(notes)}." if notes else ""


def _size(gallery: dict[str, Any], most: int) -> int:
    cells = (cell for row in gallery["rows"] for cell in row["cells"][:most] if cell)
    return sum(len(uri) for cell in cells for uri in cell["pictures"])


def _shown(gallery: Gallery) -> dict[str, Any]:
    rows = []
    for row in gallery.rows:
        factor = amplification(row.examples)
        cells = [None if e is None else _cell(e, factor) for e in row.examples]
        rows.append({"label": row.label, "factor": f"{factor:g}", "cells": cells})
    columns = list(gallery.columns)
    return {"title": gallery.title, "caption": gallery.caption, "columns": columns, "rows": rows}


def _cell(example: Example, factor: float) -> dict[str, Any]:
    images = (example.original, example.adversarial, difference(example, factor))
    limit = "" if example.threshold is None else f", threshold {example.threshold:.4g}"
    return {
        "pictures": [picture(image) for image in images],
        "label": example.label,
        "predicted": example.predicted,
        "fooled": example.fooled,
        "distances": f"L2 {example.l2:.3g}, L\N{INFINITY} {example.linf:.3g}",
        "score": f"{example.score:.4g}",
        "limit": limit,
        "outcome": example.outcome,
    }
