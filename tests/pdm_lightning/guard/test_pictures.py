"""Images of strangers: every format and mode against a reading of its own, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pdm_lightning.data.decode import Format, decode
from pdm_lightning.guard import (
    GuardFileError,
    ImageError,
    Limits,
    Preprocessing,
    picture,
    preprocessing,
    source,
)
from pdm_lightning.guard.picture import read_image
from tests.integration.mutant_images import samples

SAMPLES = samples()
PLAIN = [name for name in SAMPLES if not name.endswith((" I;16", " F"))]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PLAIN)
def test_formats_and_modes_are_read_as_data_sets_are(name: str, channels: int, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(SAMPLES[name])
    expected = decode(tmp_path, [("image", 0)], Format(channels, 9, 7))[0]
    assert torch.equal(read_image(tmp_path / "image", Preprocessing(9, 7, channels)), expected)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(form: str, tmp_path: Path) -> None:
    pixels = np.array([[0, 128, 129, 257], [32768, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "image", form)
    found = read_image(tmp_path / "image", Preprocessing(2, 4, 1))
    # v / 257, to the nearest: 128 / 257 = .498 and 129 / 257 = .502; 32768 / 257 = 127.502
    assert found[0].tolist() == [[0, 0, 1, 1], [128, 254, 255, 255]]


def test_sixteen_bits_become_eight_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (11, 7)).astype(np.uint16)
    monkeypatch.setattr(preprocessing, "AT_ONCE", 3 * 7)
    kinds = Image.fromarray(pixels), Image.fromarray(pixels.astype(np.int32))
    for image in kinds:
        found = np.asarray(preprocessing.eight_bits(image))
        assert (found == (pixels.astype(int) + 128) // 257).all()
    wrong = pixels.astype(np.int32)
    wrong[-1, -1] = 65536
    with pytest.raises(ValueError, match="pixels beyond 16 bits"):
        preprocessing.eight_bits(Image.fromarray(wrong))


def test_sixteen_bits_take_little_memory() -> None:
    image = Image.fromarray(np.full((2000, 2000), 257, np.uint16))
    tracemalloc.start()
    try:
        preprocessing.eight_bits(image)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 8 MB of pixels, 4 MB of the result, copies of either for Pillow, and some blocks; int64 copies took 32 MB each
    assert most < 48_000_000


def test_few_pixels_are_decoded_at_a_time() -> None:
    """Threads that have room go on, others wait; an image beyond all room has it alone."""
    room, most = picture.Room(10), []
    lock = threading.Lock()

    def work(pixels: int) -> None:
        with room.take(pixels):
            with lock:
                most.append(room.whole - room.free)
            time.sleep(0.01)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [4, 5, 6, 1, 30, 2, 9, 10] * 3))
    assert max(most) <= 10 and room.free == 10
    with pytest.raises(ZeroDivisionError), room.take(3):
        raise ZeroDivisionError
    assert room.free == 10


def test_an_image_has_room_while_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image").write_bytes(SAMPLES["PNG RGB"])
    room, seen = picture.Room(1000), []
    monkeypatch.setattr(picture, "_IN_FLIGHT", room)
    monkeypatch.setattr(Preprocessing, "__call__", lambda *_: seen.append(room.free))
    read_image(tmp_path / "image", Preprocessing(8, 8, 3))
    assert seen == [1000 - 20 * 24] and room.free == 1000


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 200)]
    frames[0].save(tmp_path / "image", "GIF", save_all=True, append_images=frames[1:])
    assert int(read_image(tmp_path / "image", Preprocessing(8, 8, 1)).max()) == 10


def test_cropping_keeps_the_middle() -> None:
    """224 of 256 pixels of the shorter side; what is outside does not count."""
    image = np.full((256, 400, 3), 255, np.uint8)
    image[16:240, 88:312] = 7
    found = Preprocessing(224, 224, 3, "crop")(Image.fromarray(image))
    assert found.shape == (3, 224, 224)
    assert found.unique().tolist() == [7]
    tall = Preprocessing(28, 14, 1, "crop")(
        Image.fromarray(np.arange(64, dtype=np.uint8)[:, None].repeat(32, 1))
    )
    # seven eighths of 64 rows are 56, from row 4 on; two of them a pixel
    assert abs(int(tall[0, 14, 7]) - 32.5) <= 1
    assert abs(int(tall[0, 0, 0]) - 4.5) <= 1


@pytest.mark.parametrize("wrong", [(0, 8, 1), (8, 1025, 1), (8, 8, 5), (8, 8, True), (8, 8, 1, "pad")])
def test_preprocessing_that_is_none(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(GuardFileError, match=r"preprocessing\."):
        Preprocessing(*wrong)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that promises so many pixels, whatever it holds."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


REFUSED: list[tuple[str, Callable[[], bytes], str]] = [
    (
        "a bomb",
        lambda: png(30_000, 30_000, zlib.compress(b"\0" * 10**7)),
        r"more than 178000000 pixels|30000 x 30000",
    ),
    ("absurd sizes", lambda: png(2**31 - 1, 2**31 - 1), "more than 178000000 pixels"),
    ("one line", lambda: png(70_000_000, 1), r"70000000 x 1 pixels, 64000000 allowed \(--max-pixels\)"),
    ("no data", lambda: png(8, 8), "."),
    ("cut short", lambda: SAMPLES["JPEG RGB"][:-100], "truncated"),
    ("empty", lambda: b"", "no image of a known format"),
    ("text", lambda: b"GIF89a but not really", "."),
    ("PostScript", eps, "no image of a known format"),
    ("float", lambda: SAMPLES["TIFF F"], "floating-point pixels have no agreed range"),
]


@pytest.mark.parametrize(("content", "told"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(content: Callable[[], bytes], told: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(content())
    with pytest.raises(ImageError, match=told) as caught:
        read_image(tmp_path / "image", Preprocessing(8, 8, 3))
    assert "\n" not in str(caught.value)


def scans(count: int, more: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan stands there so many times, `more` before the first one."""
    file = io.BytesIO()
    Image.new("L", (64, 64), 128).save(file, "JPEG", progressive=True)
    raw = file.getvalue()
    first, last = raw.index(b"\xff\xda"), raw.rindex(b"\xff\xda")
    return raw[:first] + more + raw[first:last] + raw[last:-2] * count + raw[-2:]


def test_jpegs_of_very_many_scans(tmp_path: Path) -> None:
    """Some 95 bytes each would cost 40 ms of a large image."""
    usual = scans(1).count(b"\xff\xda")
    (tmp_path / "image").write_bytes(scans(101 - usual))
    assert read_image(tmp_path / "image", Preprocessing(8, 8, 1)).unique().tolist() == [128]
    # a restart interval has the decoder look into what stands behind a marker that is none
    hidden = b"\xff\x02\xff\xff"
    for bomb in (scans(102 - usual), scans(10_000), scans(102 - usual, hidden)):
        (tmp_path / "image").write_bytes(bomb)
        with pytest.raises(ImageError, match="a JPEG of more than 100 scans"):
            read_image(tmp_path / "image", Preprocessing(8, 8, 1))


def test_what_looks_like_scans_and_is_none(tmp_path: Path) -> None:
    """A comment, and what stands behind the end: telephones put films there."""
    content = b"\xff\xda" * 1000
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(content)) + content
    (tmp_path / "image").write_bytes(scans(1, comment) + content)
    assert read_image(tmp_path / "image", Preprocessing(8, 8, 1)).shape == (1, 8, 8)


def test_who_stops_waits_for_no_image_that_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, let_on = [], threading.Event()

    def slow(path: str, *_: object) -> torch.Tensor:
        begun.append(path)
        if len(begun) > 1:
            let_on.wait(20)
        return torch.zeros(1)

    monkeypatch.setattr(source, "read_image", slow)
    monkeypatch.setattr(source.os, "cpu_count", lambda: 1)
    parts = source.decoded(enumerate("abcdef"), Preprocessing(8, 8, 1), 1)
    assert next(parts)[0][1] == "a"
    before = time.monotonic()
    parts.close()  # type: ignore[attr-defined]
    assert time.monotonic() - before < 10
    let_on.set()
    assert begun in (["a"], ["a", "b"])


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(SAMPLES["PNG RGB"])
    size = len(SAMPLES["PNG RGB"])
    read_image(tmp_path / "image", Preprocessing(8, 8, 3), Limits(480, size))
    with pytest.raises(ImageError, match="20 x 24 pixels, 479 allowed"):
        read_image(tmp_path / "image", Preprocessing(8, 8, 3), Limits(pixels=479))
    with pytest.raises(ImageError, match=f"{size} bytes, {size - 1} allowed"):
        read_image(tmp_path / "image", Preprocessing(8, 8, 3), Limits(bytes=size - 1))
    for wrong in ({"pixels": 0}, {"pixels": 178_000_001}, {"bytes": 0}):
        with pytest.raises(ValueError, match="limits: 1 to 178000000 pixels"):
            Limits(**wrong)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    pixels = Preprocessing(8, 8, 1)
    for name, told in [
        ("pipe", "no regular file"),
        ("", "no regular file"),
        ("link", "No such file"),
        ("x", "No such"),
    ]:
        with pytest.raises(ImageError, match=told):
            read_image(tmp_path / name, pixels)
    with pytest.raises(ImageError, match="no name of a file"):
        read_image("a\0b", pixels)
    with pytest.raises(ImageError, match="no regular file"):
        read_image("/dev/zero", pixels)


def test_two_channels_are_for_tensors_alone() -> None:
    with pytest.raises(ValueError, match="image files have 1 or 3 channels, this guard takes 2"):
        Preprocessing(8, 8, 2)(Image.open(io.BytesIO(SAMPLES["PNG L"])))
