"""Attacked images: how much a difference is amplified, what a picture holds, and what is left out of a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pdm_lightning.report import write_report
from pdm_lightning.report.gallery import (
    LARGEST,
    Example,
    Gallery,
    GalleryRow,
    amplification,
    difference,
    picture,
    shown,
)


def example(change: float = 0.1, size: int = 4, channels: int = 1, **more) -> Example:
    original = np.full((size, size, channels), 0.5, dtype=np.float32)
    adversarial = original.copy()
    adversarial[0, 0] += change
    told = {"label": "3", "predicted": "8", "l2": 0.1, "linf": 0.1, "score": 2.0, "threshold": 1.0} | more
    return Example(original, adversarial, **told)


def gallery(columns: int = 2, rows: int = 1, **more) -> Gallery:
    row = GalleryRow("CE", [example(**more) for _ in range(columns)])
    return Gallery("FGSM", "", [(k, "3") for k in range(columns)], [row] * rows)


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))))


@pytest.mark.parametrize(
    "change, factor",
    [(0.5, 1), (0.3, 1), (0.25, 2), (0.1, 5), (0.05, 10), (0.04, 10), (-0.5, 1), (0.001, 500), (0, 1)],
)
def test_amplification(change, factor):
    assert amplification([example(change), None, example(change / 2)]) == factor


def test_a_change_of_the_whole_range_is_made_smaller():
    black, white = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    one = Example(black, white, "0", "1", 1.0, 1.0, 0.0)
    assert amplification([one]) == 0.5
    assert difference(one, 0.5) == pytest.approx(1.0)


@given(st.floats(1e-6, 0.5), st.booleans())
def test_no_difference_leaves_the_range_and_the_largest_uses_a_fifth_of_it(size, down):
    one = example(-size if down else size)
    # what float32 kept of it
    top = abs(float(one.adversarial[0, 0, 0]) - 0.5)
    if top == 0:
        return
    factor = amplification([one])
    assert 0.2 * (1 - 1e-9) <= factor * top <= 0.5 * (1 + 1e-6)


def test_an_unchanged_pixel_is_middle_grey_and_a_changed_one_as_far_from_it_as_told():
    seen = pixels(picture(difference(example(0.05), 10.0)))
    assert seen.shape == (4, 4) and seen[1, 1] == 128 and seen[0, 0] == 255
    assert pixels(picture(difference(example(-0.05), 5.0)))[0, 0] == 64


def test_a_picture_holds_the_pixels_and_a_large_one_is_made_smaller():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (pixels(picture(values / 255)) == values).all()
    assert pixels(picture(np.zeros((300, 600, 3)))).shape == (LARGEST // 2, LARGEST, 3)


def test_outcomes():
    assert example(score=1.0).outcome == "not flagged" and example(score=1.1).outcome == "flagged"
    assert example(threshold=None).outcome == "no threshold"
    assert example().fooled and not example(predicted="3").fooled


def test_a_page_that_is_too_large_shows_fewer_images_then_fewer_attacks():
    whole, note = shown([gallery(3), gallery(3)])
    assert [len(one["columns"]) for one in whole] == [3, 3] and note == ""
    each = sum(len(uri) for uri in whole[0]["rows"][0]["cells"][0]["pictures"])
    fewer, note = shown([gallery(3), gallery(3)], budget=5 * each)
    assert [len(one["columns"]) for one in fewer] == [2, 2]
    assert [len(one["rows"][0]["cells"]) for one in fewer] == [2, 2]
    assert note == "To keep the page small, 2 of 3 images an attack are shown."
    last, note = shown([gallery(3), gallery(3)], budget=each)
    assert len(last) == 1 and "1 of 3 images an attack are shown and 1 of 2 attacks are shown" in note
    assert shown([gallery()], budget=10)[0] == [] and shown([]) == ([], "")


def test_the_page_tells_of_each_image(make, tmp_path):
    row = GalleryRow("PDM", [example(), example(predicted="3", score=0.0), None])
    one = Gallery("C&W on digits", "a caption", [(4, "3"), (7, "3"), (9, "3")], [row])
    page = write_report(tmp_path, make.study([], gallery=[one])).read_text()
    for words in (
        "C&amp;W on digits",
        "a caption",
        "difference \N{MULTIPLICATION SIGN} 5",
        "3 → 8",
        "stays 3",
        '<span class="not-flagged">not flagged',
        "not attacked: the model gets it wrong",
        'alt="original, class 3"',
        'alt="attacked, taken for 8"',
        'alt="difference times 5"',
        "score 2, threshold 1",
    ):
        assert words in page
