"""The broken toys, as a fixture: the tests' folders are no packages."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toys() -> Any:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toys.py"))))
