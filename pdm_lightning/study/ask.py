"""Asking Hydra what a command line means."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig

import pdm_lightning
from pdm_lightning.study.cell import Cell, resolve


def conf_dir() -> Path:
    """Folder of the shipped configuration: inside the installed package, or at the top of a checkout."""
    package = Path(pdm_lightning.__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def ask(command: str, words: list[str]) -> list[Cell]:
    """Compose every cell that a command line asks for.

    Parameters
    ----------
    command : str
        The command's name, for Hydra's help.
    words : list of str
        Overrides and Hydra's own flags (``-m``, ``--config-dir``, ``--cfg job``, ``--help``).

    Returns
    -------
    list of Cell
        Empty where Hydra only printed something.

    Raises
    ------
    Exception
        Hydra's errors, as they are; `pdm_lightning.errors.explain` puts them into a line.
    """
    cells: list[Cell] = []

    def task(config: Any) -> None:
        # a sweep hands over cells that are composed already
        cells.append(
            config if isinstance(config, Cell) else resolve(config, HydraConfig.get().overrides.task)
        )

    with _arguments(f"pdml {command}", words):
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    return cells


@contextmanager
def _arguments(program: str, words: list[str]) -> Iterator[None]:
    """Hydra reads ``sys.argv``, and with HYDRA_FULL_ERROR raises instead of printing and leaving."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [program, *words], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
