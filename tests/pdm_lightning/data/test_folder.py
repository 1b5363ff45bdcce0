from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pdm_lightning.data import decode
from pdm_lightning.data.folder import image_folder, tree_listing


def save(path: Path, value: int, size: tuple[int, int] = (8, 10), mode: str = "L") -> None:
    """An image of one value; size is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value if mode == "L" else (value, 0, 255 - value)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes; the values of train count from 1, those of test from 101."""
    root = tmp_path / "pets"
    for split, first in (("train", 1), ("test", 101)):
        for i in range(12):
            save(root / split / ("cat" if i % 2 else "dog") / f"{i:02}.png", first + i)
    return root


def test_reads_the_tree(tree: Path) -> None:
    data = image_folder(tree, val_size=4)
    assert (data.name, data.classes, data.shape) == ("pets", ["cat", "dog"], (1, 8, 10))
    assert [len(s[1]) for s in (data.train, data.validation, data.test)] == [8, 4, 12]
    for images, labels in (data.train, data.validation, data.test):
        # value 1 + i (or 101 + i) of a cat, class 0, is even
        assert torch.equal(images[:, 0, 0, 0].long() % 2, labels)
    both = torch.cat([data.train[0], data.validation[0]])[:, 0, 0, 0]
    assert both.sort().values.tolist() == list(range(1, 13))
    assert data.test[0][:, 0, 0, 0].sort().values.tolist() == list(range(101, 113))


def test_foreign_files_are_passed_over(tree: Path) -> None:
    (tree / "train" / "cat" / "notes.txt").write_text("no image")
    (tree / "train" / "cat" / "._00.png").write_bytes(b"macOS")
    (tree / "train" / ".cache").mkdir()
    (tree / "README.md").write_text("no class")
    assert len(image_folder(tree, val_size=4).train[1]) == 8


def test_number_classes_count_as_numbers(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("10", "9", "2"):
            for i in range(2):
                save(tmp_path / split / name / f"{i}.png", int(name))
    data = image_folder(tmp_path, val_size=1)
    assert data.classes == ["2", "9", "10"]
    assert [data.classes[y] for y in data.test[1]] == [str(int(x[0, 0, 0])) for x in data.test[0]]


def test_mixed_sizes_take_the_most_common(tree: Path) -> None:
    save(tree / "train" / "cat" / "wide.png", 200, (20, 40))
    data = image_folder(tree, val_size=4)
    assert data.shape == (1, 8, 10)
    assert 200 in torch.cat([data.train[0], data.validation[0]]).amax((1, 2, 3)).tolist()
    assert image_folder(tree, val_size=4, size=16).shape == (1, 16, 16)
    assert image_folder(tree, val_size=4, size=[9, 7], channels=3).shape == (3, 9, 7)


def test_resizing_is_pillows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 2, 24, 24, 3)).astype(np.uint8)
    for s, split in enumerate(("train", "test")):
        for c, name in enumerate("ab"):
            for copy in range(2):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[s, c]).save(tmp_path / split / name / f"{copy}.png")
    data = image_folder(tmp_path, size=12, val_size=1)
    for x, y in zip(*data.test, strict=True):
        wanted = Image.fromarray(pixels[1, int(y)]).resize((12, 12), Image.Resampling.BILINEAR)
        assert np.array_equal(x.permute(1, 2, 0).numpy(), np.asarray(wanted))


def test_colour_is_found(tree: Path) -> None:
    save(tree / "test" / "dog" / "colour.png", 10, mode="RGB")
    data = image_folder(tree, val_size=4)
    assert data.shape == (3, 8, 10)
    assert [10, 0, 245] in data.test[0][:, :, 0, 0].tolist()
    assert image_folder(tree, val_size=4, channels=1).shape == (1, 8, 10)


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_split(tree: Path, split: str) -> None:
    shutil.rmtree(tree / split)
    with pytest.raises(
        FileNotFoundError, match=rf"no folder '.*pets/{split}'.*train/<class>/<image> and test/<class>"
    ):
        image_folder(tree)


def test_empty_folders(tree: Path) -> None:
    (tree / "test" / "bird").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images in '.*test/bird'"):
        image_folder(tree)
    shutil.rmtree(tree / "test")
    (tree / "test").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no class folders in '.*test'"):
        image_folder(tree)


def test_classes_must_agree(tree: Path) -> None:
    save(tree / "test" / "bird" / "0.png", 5)
    with pytest.raises(ValueError, match="only one of the two has bird"):
        image_folder(tree)


def test_broken_files_are_named(tree: Path) -> None:
    (tree / "train" / "cat" / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"cannot read '.*train/cat/broken\.jpg' as an image"):
        image_folder(tree)
    (tree / "train" / "cat" / "broken.jpg").unlink()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)).save(
        tree / "cut.png"
    )
    (tree / "test" / "dog" / "cut.png").write_bytes((tree / "cut.png").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cannot decode '.*test/dog/cut\.png'"):
        image_folder(tree)


def test_deep_images_are_refused(tree: Path) -> None:
    Image.fromarray(np.full((8, 10), 40_000, np.uint16)).save(tree / "train" / "cat" / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png' has more than 8 bits"):
        image_folder(tree)


def test_more_than_the_memory_is_refused(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"24 images of 900000x900000 need .* smaller data\.size"):
        image_folder(tree, size=900_000, channels=1)


def test_cache(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "out" / "decoded"
    first = image_folder(tree, val_size=4, cache=cache)
    (kept,) = cache.iterdir()
    calls: list[int] = []
    real = decode.decode
    monkeypatch.setattr(decode, "decode", lambda *a: calls.append(1) or real(*a))
    again = image_folder(tree, val_size=4, cache=cache)
    assert not calls
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(first, split)[0], getattr(again, split)[0])
    kept.write_bytes(kept.read_bytes()[:50])
    assert torch.equal(image_folder(tree, val_size=4, cache=cache).test[0], first.test[0])
    assert len(calls) == 1
    save(tree / "train" / "cat" / "new.png", 77)
    assert len(image_folder(tree, val_size=4, cache=cache).train[1]) == 9
    assert len(calls) == 2
    assert image_folder(tree, val_size=4, cache=cache, size=[8, 9]).shape == (1, 8, 9)
    assert image_folder(tree, val_size=4, cache=cache, channels=3).shape == (3, 8, 10)
    assert all(path.suffix == ".safetensors" for path in cache.iterdir())


def test_listing_is_sorted_train_first(tree: Path) -> None:
    paths = [path for path, _ in tree_listing(tree)]
    assert paths[0] == "train/cat/01.png" and paths[12] == "test/cat/01.png"
    assert paths == sorted(paths[:12]) + sorted(paths[12:])


@pytest.mark.skipif(
    "PDM_DATA_ROOT" not in os.environ, reason="PDM_DATA_ROOT is not set: no real photographs to read"
)
def test_real_photographs(tmp_path: Path) -> None:
    root = Path(os.environ["PDM_DATA_ROOT"]) / "cifar10_jpeg"
    if not root.is_dir():
        pytest.skip(f"no folder {root}")
    data = image_folder(root, cache=tmp_path)
    assert (data.name, data.shape, data.num_classes) == ("cifar10_jpeg", (3, 32, 32), 10)
    assert [len(s[1]) for s in (data.train, data.validation, data.test)] == [45_000, 5_000, 10_000]
    assert torch.bincount(data.test[1]).tolist() == [1000] * 10
    # the means of CIFAR-10's channels
    means = data.train[0].double().mean((0, 2, 3)) / 255
    assert torch.allclose(means, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=0.004)
    again = image_folder(root, cache=tmp_path)
    assert torch.equal(again.validation[0], data.validation[0])
