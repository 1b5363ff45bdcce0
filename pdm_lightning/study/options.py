"""The options of a group, read from their files alone: for options that reach nowhere beyond their own node.

Hydra composes a whole configuration in about 0.1 s; the file of an option is read in a few milliseconds. A file says
by itself whether more than its own node can depend on it: a package of its own, or a defaults list that names another
group, can reach anywhere; a defaults list of files of the same group cannot.
"""

from __future__ import annotations

import re
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import ConfigDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pdm_lightning.study.words import CONFIG

_NAME = re.compile(r"[A-Za-z0-9_]\w*(-\w+)*")


class Options:
    """Nodes of options, unresolved, each file read once.

    Parameters
    ----------
    loader : ConfigLoaderImpl
        Hydra's reader of configuration files.
    """

    def __init__(self, loader: ConfigLoaderImpl) -> None:
        self.loader = loader
        self._files: dict[str, list[tuple[str, DictConfig]] | None] = {}
        self._places: dict[tuple[str, ...], list[tuple[str, frozenset[str] | None]]] = {}

    def node(self, group: str, option: str, overrides: tuple[str, ...]) -> dict[str, Any] | None:
        """What a full compose of `overrides` would hold under a group, had another of its options been chosen.

        Parameters
        ----------
        group : str
            Such as ``attack``.
        option : str
            The other option's name.
        overrides : tuple of str
            Of the full compose.

        Returns
        -------
        dict or None
            Plain and unresolved. None where this cannot be told from the option's own files.

        Raises
        ------
        hydra.errors.ConfigCompositionException
            Where an override does not fit the option, as a full compose would raise it.
        """
        files = self._own_files(group, option)
        if files is None or not self._alone(group, overrides):
            return None
        node = OmegaConf.merge(*(config for _, config in files))
        whole = OmegaConf.create({group: node})
        OmegaConf.set_struct(whole, True)
        ConfigLoaderImpl._apply_overrides_to_config(_within(group, overrides), whole)
        plain = OmegaConf.to_container(whole, resolve=False)
        assert isinstance(plain, dict)
        return dict(plain[group])

    def _own_files(self, group: str, option: str) -> list[tuple[str, DictConfig]] | None:
        """An option's file behind those of its group that it is based on; None where it names anything else."""
        path = f"{group}/{option}"
        if path not in self._files:
            self._files[path] = None  # a file that is based on itself is left to Hydra
            self._files[path] = self._read(group, option) if _NAME.fullmatch(option) else None
        return self._files[path]

    def _read(self, group: str, option: str) -> list[tuple[str, DictConfig]] | None:
        path = f"{group}/{option}"
        found = self.loader.repository.load_config(path) if group.isidentifier() else None
        if found is None or not isinstance(found.config, DictConfig) or found.header.get("package"):
            return None
        files: list[tuple[str, DictConfig]] = []
        if not found.defaults_list:
            return [(path, found.config)]
        if not any(default.is_self() for default in found.defaults_list):
            return None
        for default in found.defaults_list:
            if type(default) is not ConfigDefault or default.package or default.optional:
                return None
            below = [(path, found.config)] if default.is_self() else self._own_files(group, str(default.path))
            if below is None:
                return None
            files += below
        return files

    def _alone(self, group: str, overrides: tuple[str, ...]) -> bool:
        """Whether only files of the group itself contribute to its node in a full compose."""
        files = self._contributions(overrides)
        return all(path.rpartition("/")[0] == group for path, keys in files if keys is None or group in keys)

    def _contributions(self, overrides: tuple[str, ...]) -> list[tuple[str, frozenset[str] | None]]:
        """Path of each file of a full compose, and the keys of the configuration's top that it may set."""
        if overrides not in self._places:
            found = self.loader.compute_defaults_list(CONFIG, list(overrides), RunMode.RUN)
            self._places[overrides] = [
                (str(default.config_path), self._keys(default))
                for default in found.defaults
                if default.config_path and str(default.package).partition(".")[0] != "hydra"
            ]
        return self._places[overrides]

    def _keys(self, default: ResultDefault) -> frozenset[str] | None:
        """None: unknown, so any."""
        if default.package:
            return frozenset({default.package.partition(".")[0]})
        loaded = self.loader.repository.load_config(str(default.config_path))
        return None if loaded is None else frozenset(str(key) for key in loaded.config)


def _within(group: str, overrides: tuple[str, ...]) -> list[Override]:
    """The overrides of values under a group's node."""
    parser = OverridesParser.create()
    inside = (word for word in overrides if word.lstrip("+~").startswith(f"{group}."))
    return [parser.parse_override(word) for word in inside]
