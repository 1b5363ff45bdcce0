"""A small study that was tracked with W&B offline, and what W&B wrote."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pdm_lightning.report.rows import Row, read_csv
from tests.conftest import TINY
from tests.pdm_lightning.tracking.wandb_files import OfflineRun, runs


@dataclass
class Tracked:
    """The study's words and output, and what W&B wrote when it was run for the first time."""

    output: Path
    words: tuple[str, ...]
    first: list[OfflineRun] = field(default_factory=list)

    def runs(self) -> list[OfflineRun]:
        """All that there is by now."""
        return runs(self.output)

    @property
    def rows(self) -> list[Row]:
        return read_csv(self.output / "report" / "tracked" / "results.csv")

    def run(self, *words: str) -> int:
        from pdm_lightning.cli import main

        return main(["run", *self.words, *words])


def log_out(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Make the user one who has never logged in to W&B."""
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        patch.delenv(name, raising=False)
    patch.setenv("HOME", str(home))


@pytest.fixture(scope="session")
def nobody_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, nobody_home: Path) -> Path:
    """A user who has never logged in."""
    log_out(monkeypatch, nobody_home)
    return nobody_home


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory, nobody_home: Path) -> Tracked:
    """Two cells of two trainings, run once a session."""
    output = tmp_path_factory.mktemp("tracked")
    words = (
        *(
            "-m",
            "defense=ce,pdm",
            "attack=fgsm_010",
            "name=tracked",
            *TINY,
            "budget.train.steps=40",
            "tsne.points=200",
        ),
        *("logger=wandb", "logger.tags=[thesis]", "logger.images=5", f"paths.output={output}"),
    )
    study = Tracked(output, words)
    with pytest.MonkeyPatch.context() as patch:
        log_out(patch, nobody_home)
        assert study.run() == 0
    study.first = study.runs()
    return study
