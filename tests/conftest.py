"""What all tests share."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

# small models; two threads on a busy machine wait for one another
torch.set_num_threads(1)
os.environ.setdefault("WANDB_MODE", "offline")
# pytest-xdist hands its terminal's width on to its workers, whose output is no terminal's
os.environ.pop("COLUMNS", None)

#: Overrides that make a study take seconds; its numbers mean nothing.
TINY = (
    "data=digits",
    "model=resnet8",
    "budget=smoke",
    "budget.train.steps=20",
    "budget.train.segment=10",
    "budget.train.batch_size=64",
    "budget.images.cheap=60",
    "budget.images.medium=10",
    "budget.images.heavy=10",
    "evaluate.bootstrap=50",
    "evaluate.min_n=5",
    "card.run=none",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that hold slow tests."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@dataclass(frozen=True)
class TinyStudy:
    """A finished study on disk."""

    output: Path
    words: tuple[str, ...]
    pristine: Path
    """A copy of the output that no test has added anything to; not to be changed."""

    @property
    def report(self) -> Path:
        return self.output / "report" / "tiny"


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    """Four cells of two trainings, run once a session through the command line."""
    from pdm_lightning.cli import main

    output = tmp_path_factory.mktemp("study")
    words = (
        "-m",
        "defense=ce,pdm",
        "attack=fgsm_010,bim_010",
        "name=tiny",
        "report.tables=[accuracy,detection,summary]",
        "report.figures=[tsne,confusion]",
        "tsne.points=60",
        f"paths.output={output}",
        *TINY,
    )
    assert main(["run", *words]) == 0
    pristine = tmp_path_factory.mktemp("pristine") / "outputs"
    shutil.copytree(output, pristine)
    return TinyStudy(output, words, pristine)
