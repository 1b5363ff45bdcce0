"""Colours that colour-blind readers can tell apart, for light and for dark paper."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Colours of one rendering.

    Attributes
    ----------
    paper, ink, faint, grid : str
        Background, text, secondary text and grid lines.
    categories : tuple of str
        Ten colours for classes or curves, in the order of use.
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
        "#2f6db3", "#e07b1a", "#12927f", "#b3327d", "#7a5cc9",
        "#b89200", "#4fb0dd", "#c8452f", "#6b7480", "#4c8c2b",
    ),
    heat=("#f6f9fc", "#bcd6ee", "#5f9dd0", "#1f5f9e", "#0b2f5c"),
)  # fmt: skip
DARK = Theme(
    paper="#171c23",
    ink="#e6eaf0",
    faint="#9aa6b5",
    grid="#2c3540",
    categories=(
        "#6ba8ec", "#f7a14c", "#3ecbb3", "#ec77bb", "#ab92f5",
        "#e3c740", "#93d8fa", "#f37f6a", "#a7b1be", "#8bcf63",
    ),
    heat=("#1b222b", "#1f456d", "#2f74b3", "#76b4e8", "#d6ebfd"),
)  # fmt: skip

#: Shapes and dashes go with the colours, so that no curve is told by its colour alone.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.6, 1.4, 1.6)), (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)))
