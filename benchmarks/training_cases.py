"""What a training is measured on: a network, images and a defence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdm_lightning.data import ImageData
from pdm_lightning.data.sources import torchvision_dataset
from pdm_lightning.study.ask import ask
from pdm_lightning.study.specs import train_spec

SHAPES = {"mnist": (1, 28), "cifar10": (3, 32)}
#: Where torchvision keeps their files.
FOLDERS = {"mnist": "MNIST/raw", "cifar10": "cifar-10-batches-py"}
#: Steps that no measurement reaches.
ENDLESS = 10**6


@dataclass(frozen=True)
class Case:
    """One measured training.

    Attributes
    ----------
    data
        "mnist" or "cifar10": the option, with its augmentation.
    model
        Option of the network.
    defense
        Option of the defence; "pdm" sees pairs, two images an anchor.
    batch
        Anchors a step.
    images
        Synthetic training images.
    side, classes
        Of synthetic images; 0: the data set's own.
    """

    data: str
    model: str
    defense: str
    batch: int = 128
    images: int = 20000
    side: int = 0
    classes: int = 10

    @property
    def name(self) -> str:
        """In tables and files."""
        return f"{self.data} {self.model} {self.defense}"

    @property
    def seen(self) -> int:
        """Images a step."""
        return self.batch * (2 if self.defense == "pdm" else 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, side = SHAPES[self.data]
        return channels, self.side or side, self.side or side

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


CASES = tuple(
    Case(data, model, defense)
    for data, models in (
        ("mnist", ("resnet8", "resnet20", "resnet56")),
        ("cifar10", ("resnet8", "resnet20", "resnet56")),
    )
    for model in models
    if (data, model) != ("cifar10", "resnet8")
    for defense in ("ce", "pdm")
)


@lru_cache(maxsize=1)
def images(case: Case, root: str | None) -> ImageData:
    """The data set under `root` (a file layout of torchvision's), or noise of its shape and balanced classes.

    Raises
    ------
    RuntimeError
        If the files cannot be read.
    """
    if root is not None:
        try:
            return torchvision_dataset(case.data, root=root)
        except Exception as error:  # whatever its readers raise of a damaged file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RuntimeError(f"{case.data} cannot be read ({reason})") from error
    draws = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[Tensor, Tensor]:
        pixels = torch.randint(0, 256, (count, *case.shape), generator=draws, dtype=torch.uint8)
        return pixels, torch.arange(count) % case.classes

    names = [str(label) for label in range(case.classes)]
    return ImageData(case.data, split(case.images), split(case.images // 4), split(64), names)


def spec(
    case: Case, segment: int = ENDLESS, steps: int = ENDLESS, precision: str = "float32"
) -> dict[str, Any]:
    """Specification of the training, as a study plans it; unless told, in one segment: no validation, no checkpoint."""
    words = [
        f"data={case.data}",
        f"model={case.model}",
        f"defense={case.defense}",
        "attack=none",
        "budget=cpu",
        f"trainer.precision={precision}",
    ]
    words += [f"budget.train.batch_size={case.batch}", f"budget.train.steps={steps}", "trainer=cpu"]
    (cell,) = ask("plan", words)
    made: dict[str, Any] = train_spec(cell.config, {})
    return made | {"train": made["train"] | {"segment": segment}}


def available(data: str, root: Path | None) -> str | None:
    """The root where it has the data set's folder, as text; None where it has not. What is in it is not read."""
    return str(root) if root is not None and (root / FOLDERS[data]).is_dir() else None
