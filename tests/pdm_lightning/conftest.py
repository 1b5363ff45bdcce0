"""A tiny training that several test files look at."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))["run"](folder)
    return folder
