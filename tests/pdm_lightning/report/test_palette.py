"""Colours: text is legible in both themes, and no two categories look alike to a colour-blind reader."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from pdm_lightning.report import palette
from pdm_lightning.report.palette import DARK, LIGHT, contrast

STYLE = (Path(palette.__file__).parent / "style.html").read_text()
#: Machado, Oliveira and Fernandes 2009, table 1, severity 1.0; they act on linear RGB.
SIGHT = {
    "all cones": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colour: str, sight: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour as somebody sees it."""
    c = np.array(to_rgb(colour))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    t = TO_XYZ @ np.clip(sight @ linear, 0, 1) / TO_XYZ.sum(axis=1)
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_lab_of_known_colours():
    # CIE 15, sRGB primaries under D65
    assert lab("#ffffff", SIGHT["all cones"]) == pytest.approx([100, 0, 0], abs=0.01)
    assert lab("#ff0000", SIGHT["all cones"]) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    # what red and green share for who sees no green: the hue
    red, green = (lab(colour, SIGHT["no green"]) for colour in ("#ff0000", "#00ff00"))
    assert red[2] > 60 and green[2] > 60


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_categories_are_told_apart(theme, sight):
    seen = [lab(colour, SIGHT[sight]) for colour in theme.categories]
    assert len(seen) == 10
    for first, second in combinations(range(10), 2):
        # a difference of 2.3 is just noticeable side by side; curves and points lie apart, and are thin
        least = 25 if second < 4 else 20 if second < 6 else 15
        assert np.linalg.norm(seen[first] - seen[second]) > least, (first, second)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_figures_are_legible(theme):
    paper = to_rgb(theme.paper)
    # WCAG 2.1: 4.5 for text, 3 for graphics
    assert all(contrast(to_rgb(colour), paper) >= 4.5 for colour in (theme.ink, theme.faint))
    assert all(contrast(to_rgb(colour), paper) >= 3 for colour in theme.categories)


def test_contrast_of_known_pairs():
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast((1, 1, 1), (1, 1, 1)) == 1
    # the lightest grey that passes for text on white
    assert contrast(to_rgb("#767676"), (1, 1, 1)) == pytest.approx(4.54, abs=0.005)


VARIABLES = dict(re.findall(r"--([\w-]+): light-dark\((#\w+, #\w+)\);", STYLE))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "card", "tint"])
@pytest.mark.parametrize("text", ["ink", "soft", "accent", "paper", "bad"])
def test_text_of_the_page_is_legible(text, ground, theme):
    first, second = (to_rgb(VARIABLES[name].split(", ")[theme]) for name in (text, ground))
    assert contrast(first, second) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_failures_are_legible(theme):
    ground = to_rgb(VARIABLES["bad-tint"].split(", ")[theme])
    assert all(contrast(to_rgb(VARIABLES[n].split(", ")[theme]), ground) >= 4.5 for n in ("ink", "soft"))


def test_every_colour_of_the_style_is_a_variable():
    rules = STYLE.split("* { box-sizing")[1]
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", rules)) == {"#fff"}  # the paper of a printer
