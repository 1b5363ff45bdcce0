"""From words to files: order, patterns, lists, links, and how little is held."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pdm_lightning.guard.preprocessing import Preprocessing
from pdm_lightning.guard.source import decoded
from pdm_lightning.guard.walk import find_images, walk


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.png",
        "a.JPG",
        "notes.txt",
        ".hidden.png",
        "sub/c.gif",
        "sub/deep/d.webp",
        ".git/e.png",
        "z/f.bmp",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(found: object, root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in found]  # type: ignore[attr-defined]


def test_folders_in_the_order_of_their_names(tree: Path) -> None:
    assert names(walk(tree), tree) == ["a.JPG", "b.png", "sub/c.gif", "sub/deep/d.webp", "z/f.bmp"]


def test_words(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert list(find_images(["notes.txt", "z", "absent.png"])) == ["notes.txt", "z/f.bmp", "absent.png"]
    assert sorted(find_images(["**/*.??*"])) == [
        "a.JPG",
        "b.png",
        "notes.txt",
        "sub/c.gif",
        "sub/deep/d.webp",
        "z/f.bmp",
    ]
    assert list(find_images(["x*.png"])) == ["x*.png"]  # reading it tells that there is none
    (tree / "odd[1].png").touch()
    assert list(find_images(["odd[1].png"])) == ["odd[1].png"]
    lines = iter(["b.png", "", "sub", "q*.gif"])
    assert list(find_images(["-", "a.JPG"], lines)) == [
        "b.png",
        "sub/c.gif",
        "sub/deep/d.webp",
        "q*.gif",
        "a.JPG",
    ]


def test_loops_of_links_end(tree: Path) -> None:
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "sub" / "self").symlink_to(".")
    (tree / "again").symlink_to("z")
    (tree / "broken.png").symlink_to("nowhere")
    (tree / "linked.png").symlink_to("b.png")
    found = names(walk(tree), tree)
    assert found == [
        "a.JPG",
        "b.png",
        "broken.png",
        "linked.png",
        "again/f.bmp",
        "sub/c.gif",
        "sub/deep/d.webp",
    ]


def test_patterns_end_in_loops_of_links_too(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "pqr":
        (tree / "sub" / name).symlink_to(".")
    monkeypatch.chdir(tree)
    assert sorted(find_images(["**/*.gif"])) == ["sub/c.gif"]
    assert sorted(find_images([f"{tree}/**/deep/**/*"])) == [f"{tree}/sub/deep/d.webp"]
    assert sorted(find_images(["s*/**"])) == ["sub/c.gif", "sub/deep/d.webp"]


def test_folders_that_a_pattern_matches_count_as_typed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert sorted(find_images(["[sz]*"])) == ["sub/c.gif", "sub/deep/d.webp", "z/f.bmp"]
    assert list(find_images(["**/deep"])) == ["**/deep"]  # none but a folder: told, and not passed over


def test_a_folder_that_cannot_be_listed_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.listdir

    def listdir(place: str) -> list[str]:
        if place.endswith("sub"):
            raise PermissionError(13, "Permission denied", place)
        return real(place)

    monkeypatch.setattr(os, "listdir", listdir)
    assert names(walk(tree), tree) == ["a.JPG", "b.png", "sub", "z/f.bmp"]


def test_images_are_read_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an endless list, three batches are asked for at most one batch ahead."""
    asked = 0

    def endless() -> object:
        nonlocal asked
        while True:
            asked += 1
            yield asked, f"absent-{asked}.png"

    found = decoded(endless(), Preprocessing(8, 8, 1), 10)  # type: ignore[arg-type]
    parts = [next(found) for _ in range(3)]
    assert [row for part in parts for row, _, _ in part] == list(
        range(1, 31)
    )  # in order, though threads read them
    assert asked == 40
