"""Asking Hydra what a command line means."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pdm_lightning.study.budget_names import check_budget
from pdm_lightning.study.cell import Cell, resolve
from pdm_lightning.study.diagnose import check_words, mend
from pdm_lightning.study.words import (
    CONFIG,
    conf_dir,
    config_loader,
    parse,
    spelled,
    split_words,
    without_parts,
)


class Asked(list[Cell]):
    """The cells that a command line asks for.

    Attributes
    ----------
    launcher : dict
        Hydra's node ``hydra.launcher``: what runs their jobs.
    """

    launcher: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.launcher = {}


def ask(command: str, words: list[str]) -> Asked:
    """Compose every cell that a command line asks for.

    Parameters
    ----------
    command : str
        The command's name, for Hydra's help.
    words : list of str
        Overrides and Hydra's own flags (``-m``, ``--config-dir``, ``--cfg job``, ``--help``), in any order.

    Returns
    -------
    Asked
        Empty where Hydra only printed something.

    Raises
    ------
    ValueError
        Names the word that cannot be met, and what to type instead; the cause is Hydra's own error.
    """
    flags, overrides = split_words(words)
    loader = config_loader(flags.config_dir)
    check_words(overrides, loader)
    cells = Asked()
    unresolved: list[OmegaConfBaseException] = []
    refused: list[str] = []

    def task(config: Any) -> None:
        try:
            # a sweep hands over cells that are composed already
            cells.append(config if isinstance(config, Cell) else resolve(config, _typed_words()))
            if not cells.launcher:
                cells.launcher = _launcher()
                refused.append(_unsearched(overrides, loader))
        except OmegaConfBaseException as error:  # Hydra would print lines of its own before raising it again
            unresolved.append(error)

    # Hydra reads all overrides in one piece only
    rest = Counter(words) - Counter(overrides)
    try:
        with _arguments(f"pdml {command}", [*overrides, *_only(words, rest)]), _shown(flags):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG)(task)()
    except SystemExit as leaving:
        if leaving.code:
            raise
    except HydraException as error:
        raise ValueError(mend(error, overrides, loader)) from error
    if unresolved:
        raise unresolved[0]
    if any(refused):
        raise ValueError(refused[0])
    check_budget(cells, overrides, loader)
    return cells


def _launcher() -> dict[str, Any]:
    node = OmegaConf.to_container(HydraConfig.get().launcher, resolve=True, throw_on_missing=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def _unsearched(words: list[str], loader: ConfigLoader) -> str:
    """Say which axes of an experiment a single cell would leave out without a word."""
    asked = HydraConfig.get()
    typed = {parse(word, loader).get_key_element().lstrip("+~") for word in words}
    left = [str(key) for key in asked.sweeper.get("params") or () if str(key).lstrip("+~") not in typed]
    if asked.mode is not RunMode.RUN or not left:
        return ""
    experiment = f"experiment={asked.runtime.choices.get('experiment')}"
    return (
        f"{experiment} lists values of {', '.join(left)}, and one cell takes one: pdml tune {experiment} searches; "
        "or type a value"
    )


def _typed_words() -> list[str]:
    """The overrides as typed: one that holds an interpolation is a name here, and no interpolation."""
    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(words, list)
    return [spelled(word) for word in words]


def _only(words: list[str], kept: Counter[str]) -> list[str]:
    """Those of the words that are counted, in their order."""
    left = kept.copy()
    found = []
    for word in words:
        if left[word] > 0:
            left[word] -= 1
            found.append(word)
    return found


@contextmanager
def _shown(flags: Namespace) -> Iterator[None]:
    """Let Hydra print; its help lists files that are only parts of options, which nobody should choose."""
    if not flags.help:
        yield
        return
    text = StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:
        print(without_parts(text.getvalue()), end="")


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
