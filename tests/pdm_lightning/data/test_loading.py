from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from pdm_lightning.data import fingerprint, load_data
from pdm_lightning.data.augment import check_augment
from pdm_lightning.data.loading import SHARED, _resolve

CONFIGS = sorted((Path(__file__).parents[3] / "conf" / "data").glob("*.yaml"))
KEYS = {*SHARED, "val_size", "split_seed", "size", "channels"}


def config(name: str, /, **changes: object) -> dict:
    return yaml.safe_load((CONFIGS[0].parent / f"{name}.yaml").read_text()) | changes


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for group in ("cat", "dog"):
            folder = tmp_path / "pets" / split / group
            folder.mkdir(parents=True)
            for i in range(6):
                Image.new("L", (8, 8), 10 * i).save(folder / f"{i}.png")
    return tmp_path / "pets"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_whole(path: Path) -> None:
    cfg = yaml.safe_load(path.read_text())
    assert set(cfg) >= KEYS, "options of one group share their keys"
    assert cfg["name"] == (None if path.stem == "image_folder" else path.stem)
    _, arguments = _resolve(cfg)
    assert set(arguments) >= {"val_size", "split_seed", "size", "channels"}
    check_augment(cfg["augment"])
    assert all(0 < a < b < 1 for a, b in zip(cfg["milestones"], cfg["milestones"][1:], strict=False))
    assert cfg["pairs"] in ("auto", "always") and cfg["epochs_paper"] > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_option_says_how_to_change_it(path: Path) -> None:
    for line in path.read_text().splitlines():
        key = line.split(":")[0].strip()
        if key not in ("_target_", "augment", "dataset") and not line.startswith("#"):
            assert f"data.{key}=" in line or f"data.augment.{key}=" in line or "no effect" in line, line


def test_loads_what_the_config_says(pets: Path) -> None:
    assert load_data(config("digits", size=8)).shape == (1, 8, 8)
    cfg = config("image_folder", root=str(pets), val_size=2, cache=None)
    data = load_data(cfg)
    assert data.name == "pets"
    assert len(data.train[1]) == 10
    renamed = cfg | {"name": "mine"}
    assert load_data(renamed).name == "mine"


def test_wrong_configs() -> None:
    with pytest.raises(ValueError, match=r"unknown data key.*sise"):
        load_data(config("digits", sise=8))
    with pytest.raises(ValueError, match=r"'nowhere\.digits' names no data source"):
        load_data(config("digits", _target_="nowhere.digits"))
    with pytest.raises(ValueError, match="names no data source"):
        load_data(config("digits", _target_=None))
    cfg = config("mnist")
    del cfg["dataset"]
    with pytest.raises(ValueError, match="missing a required argument: 'dataset'"):
        load_data(cfg)


def test_fingerprint_holds_content_and_no_places() -> None:
    base = fingerprint(config("mnist"))
    assert len(base) == 16 and int(base, 16) >= 0
    same = {
        "root": "/elsewhere",
        "download": True,
        "name": "x",
        "label": "y",
        "pairs": "always",
        "augment": {},
    }
    for key, value in same.items():
        assert fingerprint(config("mnist", **{key: value})) == base, key
    others = {"val_size": 100, "split_seed": 1, "size": 32, "channels": 3, "dataset": "kmnist"}
    changed = {fingerprint(config("mnist", **{key: value})) for key, value in others.items()}
    assert len(changed) == 5 and base not in changed


def test_fingerprint_of_files(pets: Path, tmp_path: Path) -> None:
    base = fingerprint(config("image_folder", root=str(pets)))
    copy = shutil.copytree(pets, tmp_path / "copy")
    os.utime(copy / "train" / "cat" / "0.png", (1, 1))
    assert fingerprint(config("image_folder", root=str(copy))) == base
    (copy / "train" / "cat" / "0.png").rename(copy / "train" / "cat" / "00.png")
    renamed = fingerprint(config("image_folder", root=str(copy)))
    with (copy / "train" / "cat" / "1.png").open("ab") as file:
        file.write(b"\0")
    longer = fingerprint(config("image_folder", root=str(copy)))
    assert len({base, renamed, longer}) == 3
    with pytest.raises(FileNotFoundError, match="no folder"):
        fingerprint(config("image_folder", root=str(tmp_path / "none")))


def test_fingerprint_of_uncompressed_files_of_one_size(tmp_path: Path) -> None:
    """Two folders whose files agree in names and sizes, and differ in pixels."""
    for name, shade in (("a", 10), ("b", 200)):
        for split, group in itertools.product(("train", "test"), ("cat", "dog")):
            folder = tmp_path / name / split / group
            folder.mkdir(parents=True)
            for i in range(4):
                Image.new("L", (8, 8), shade + i).save(folder / f"{i}.bmp")
    made = [
        config("image_folder", root=str(tmp_path / name), val_size=2, cache=str(tmp_path)) for name in "ab"
    ]
    assert fingerprint(made[0]) != fingerprint(made[1])
    a, b = (load_data(cfg) for cfg in made)
    assert int(a.test[0].max()) < 200 <= int(b.test[0].min())


def test_the_same_config_gives_the_same_images() -> None:
    a, b = load_data(config("digits")), load_data(config("digits"))
    assert torch.equal(a.train[0], b.train[0]) and torch.equal(a.validation[1], b.validation[1])
