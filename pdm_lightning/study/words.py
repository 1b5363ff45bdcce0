"""The words of a command line, and Hydra's reader of what they may name.

Completion uses this module, so nothing here imports PyTorch.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

import pdm_lightning
from pdm_lightning.errors import nearest

CONFIG = "config"


def conf_dir() -> Path:
    """Folder of the shipped configuration: inside the installed package, or at the top of a checkout."""
    package = Path(pdm_lightning.__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def config_loader(extra: str | None = None) -> ConfigLoader:
    """Hydra's reader of the shipped configuration and of a folder of the user's own.

    Raises
    ------
    ValueError
        Where there is no such folder.
    """
    search_path = create_config_search_path(str(conf_dir()))
    if extra is not None:
        folder = Path(extra).absolute()
        if not folder.is_dir():
            raise ValueError(f"--config-dir {extra}: there is no such folder")
        anchor = SearchPathQuery(provider="schema")
        search_path.prepend(provider="command-line", path=f"file://{folder}", anchor=anchor)
    return ConfigLoaderImpl(config_search_path=search_path)


def options(loader: ConfigLoader, group: str, overrides: Sequence[str] | None = None) -> list[str]:
    """Choices of a group, without the files that are only parts of them; empty for what is no group.

    Parameters
    ----------
    overrides : sequence of str, optional
        Where they are given, ``hydra.searchpath`` is looked at, too, which takes longer.
    """
    if overrides is None:
        found = loader.get_group_options(group)
    else:
        found = loader.get_group_options(group, config_name=CONFIG, overrides=list(overrides))
    return [name for name in found if not name.startswith("_")]


def without_parts(text: str) -> str:
    """Hydra's list of groups without the options whose names begin with an underscore."""
    return re.sub(r"(?m)^([\w/]+: )((?:[\w.]+, )*?)_\w+(?:, |$)", r"\1\2", text)


def spelled(word: str) -> str:
    """An override with true and false as YAML has them: one value has one name, however it is written."""
    return re.sub(r"=(true|false)$", lambda found: found[0].lower(), word, flags=re.IGNORECASE)


def split_words(words: list[str]) -> tuple[Namespace, list[str]]:
    """Flags and overrides of a command line, which may stand in any order.

    Raises
    ------
    ValueError
        For an unknown flag, or a flag without its value.
    """
    parser = get_args_parser()

    def error(message: str) -> NoReturn:
        raise ValueError(f"{message}; pdml run --help lists the flags")

    parser.error = error  # type: ignore[method-assign]
    flags, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        known = [name for name in parser._option_string_actions if name.startswith("--")]
        hint = nearest(unknown[0].partition("=")[0], known)
        raise ValueError(f"unknown flag {unknown[0]}{hint or '; pdml run --help lists the flags'}")
    return flags, flags.overrides


def parse(word: str, loader: ConfigLoader) -> Override:
    """Read one override.

    Raises
    ------
    hydra.errors.HydraException
        Where it cannot be read.
    """
    return OverridesParser.create(config_loader=loader).parse_override(word)


def settle(words: list[str], loader: ConfigLoader, *, groups_only: bool = False) -> list[str]:
    """The overrides that can be read, with the first value of each list."""
    settled = []
    for word in words:
        try:
            override = parse(word, loader)
        except HydraException:
            continue
        group = bool(options(loader, override.key_or_group))
        if override.is_sweep_override():
            if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
                continue
            word = f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
        if group or not groups_only:
            settled.append(word)
    return settled
