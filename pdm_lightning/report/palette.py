"""Colours that colour-blind readers can tell apart, for light and for dark paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Colours of one rendering.

    Attributes
    ----------
    paper, ink, faint, grid : str
        Background, text, secondary text and grid lines.
    categories : tuple of str
        Ten colours for classes or curves, in the order of use: told apart by people who see no red or no green, the
        first ones best, and each against the paper.
    heat : tuple of str
        The ends of the colour ramp of a count, from none to most.
    """

    paper: str
    ink: str
    faint: str
    grid: str
    categories: tuple[str, ...]
    heat: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1c2430",
    faint="#5b6675",
    grid="#dfe4ea",
    categories=(
        "#1c3bad", "#9c4a0d", "#0d6746", "#ab5893", "#573281",
        "#ab8e01", "#4398cc", "#80241a", "#7d8079", "#25474a",
    ),
    heat=("#f6f9fc", "#bcd6ee", "#5f9dd0", "#1f5f9e", "#0b2f5c"),
)  # fmt: skip
DARK = Theme(
    paper="#171c23",
    ink="#e6eaf0",
    faint="#9aa6b5",
    grid="#2c3540",
    categories=(
        "#5a9cf3", "#fca04c", "#2adcf4", "#e560a4", "#9945f7",
        "#f7e742", "#aff7d6", "#bb394d", "#8caa8c", "#728530",
    ),
    heat=("#1b222b", "#1f456d", "#2f74b3", "#76b4e8", "#d6ebfd"),
)  # fmt: skip


def contrast(first: Sequence[float], second: Sequence[float]) -> float:
    """Contrast ratio of two sRGB colours in [0, 1] as WCAG 2.1 defines it: from 1 (equal) to 21 (black on white)."""
    low, high = sorted(_luminance(colour) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Sequence[float]) -> float:
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


#: Shapes and dashes go with the colours, so that no curve is told by its colour alone.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.6, 1.4, 1.6)), (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)))
