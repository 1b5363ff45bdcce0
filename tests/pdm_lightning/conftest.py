"""A tiny training and a small study of threat models that several test files look at."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.holder import myself


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))["run"](folder)
    return folder


@pytest.fixture(scope="session")
def threat_study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished study under every threat model; see ``threat_study.py``."""
    run = runpy.run_path(str(Path(__file__).with_name("threat_study.py")))["run"]
    return run(tmp_path_factory.mktemp("threats"))


@pytest.fixture(scope="session")
def plant_lease() -> Callable[..., Path]:
    """Write a lease into a store, ``plant_lease(root, "model-0123", alive=True)``: this process's, or a dead one's."""

    def plant(root: Path, name: str, *, alive: bool) -> Path:
        path = root / ".locks" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(myself()) | ({} if alive else {"start": "1"})))
        return path

    return plant
