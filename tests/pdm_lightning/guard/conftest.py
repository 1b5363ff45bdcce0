"""A small trained classifier of striped images, and guards of it."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from pdm_lightning.guard import Guard
from pdm_lightning.models import Classifier
from pdm_lightning.stages.build import load_classifier

TINY = runpy.run_path(str(Path(__file__).parents[1] / "tiny_training.py"))
Images = Callable[..., tuple[Tensor, Tensor]]


def striped(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """More images of the kind that the tiny training has: three classes of stripes in noise, 8x8."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 120, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for row, label in enumerate(labels.tolist()):
        images[row, :, label * 3 : label * 3 + 2] += 130
    return images, labels


@pytest.fixture(scope="session")
def stripes() -> Images:
    return striped


@pytest.fixture(scope="session")
def trained(undisturbed: Path) -> Path:
    """Weights of the tiny training."""
    return undisturbed / "model.safetensors"


@pytest.fixture
def classifier(undisturbed: Path) -> Classifier:
    return load_classifier(TINY["tiny_spec"](), undisturbed, num_classes=3, in_channels=1)


@pytest.fixture
def guard(classifier: Classifier) -> Guard:
    """A KDE at 10 %: 120 images fit it, 100 set the threshold, 73 are held out."""
    return Guard.fit(classifier, striped(293), fpr=0.1, classes=["a", "b", "c"], name="stripes")


@pytest.fixture
def file(guard: Guard, tmp_path: Path) -> Path:
    return guard.save(tmp_path / "guard.safetensors")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """293 striped images as PNG, a folder for each class."""
    root = tmp_path_factory.mktemp("images")
    write_folders(root, *striped(293), names="abc")
    return root


def write_folders(root: Path, images: Tensor, labels: Tensor, names: Any) -> None:
    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = root / str(names[label])
        place.mkdir(exist_ok=True, parents=True)
        Image.fromarray(image[0].numpy()).save(place / f"{row:04}.png")


@pytest.fixture(scope="session")
def write_images() -> Callable[..., None]:
    return write_folders


NETWORK = """
from pdm_lightning.models import Classifier, ResNet

def make():
    return Classifier(ResNet(8, 1, [4, 4, 8]), 8, 3, "reverse")

not_one = dict
"""
MODEL = (
    "--import",
    "guarded_network:make",
    "--weights",
    "model.safetensors",
    "--size",
    "8",
    "--channels",
    "1",
)


@pytest.fixture(scope="session")
def model() -> tuple[str, ...]:
    """Words for the user's own network, with the tiny training's weights."""
    return MODEL


@pytest.fixture
def place(tmp_path: Path, folders: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's: code, weights and images; the command is typed in it."""
    (tmp_path / "guarded_network.py").write_text(NETWORK)
    shutil.copy(trained, tmp_path / "model.safetensors")
    (tmp_path / "images").symlink_to(folders)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("guarded_network", None)


@pytest.fixture
def fitted(place: Path, guard: Guard) -> Path:
    guard.save(place / "guard.safetensors")
    return place
