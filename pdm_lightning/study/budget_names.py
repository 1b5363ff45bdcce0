"""The names that a budget caps: those of costs and of attacks; a cap of any other name would cap nothing, unnoticed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra.core.config_loader import ConfigLoader
from omegaconf import OmegaConf

from pdm_lightning.errors import nearest
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.words import CONFIG, options

#: What an attack may be said to cost, from the least on.
COSTS = ("cheap", "medium", "heavy")


def check_budget(cells: Iterable[Cell], words: list[str], loader: ConfigLoader) -> None:
    """Look up the names in ``budget.images`` and ``budget.iterations``.

    Parameters
    ----------
    cells : iterable of Cell
    words : list of str
        The overrides as typed, which may tell where more options are.
    loader : ConfigLoader
        Knows the attacks, the user's own among them, whether they take part or not.

    Raises
    ------
    ValueError
        Names the first that is neither a cost (for images) nor an attack.
    """
    configs = [cell.config for cell in cells]
    asked = dict.fromkeys(name for config in configs for name in _asked(config))
    files = options(loader, "attack", words)
    repository = _repository(loader, words)
    for place, costs in {"images": COSTS, "iterations": ()}.items():
        for name in dict.fromkeys(str(key) for config in configs for key in _inside(config, "budget", place)):
            if name in costs or name in asked or _names(repository, files, name):
                continue
            known = [*costs, *(_own_name(repository, option) for option in files), *asked]
            use = f"{', '.join(costs)} or an attack's name" if costs else "an attack's name"
            raise ValueError(
                f"budget.{place}.{name}: {name!r} is unknown{nearest(name, known) or ':'} use {use}"
            )


def _repository(loader: ConfigLoader, words: list[str]) -> IConfigRepository:
    """Hydra's files, also those where the words say that more are."""
    assert isinstance(loader, ConfigLoaderImpl)
    return loader._parse_overrides_and_create_caching_repo(CONFIG, words)[1]


def _names(repository: IConfigRepository, files: list[str], name: str) -> bool:
    """Whether one of the files calls its attack so; mostly the one of that name, and no other has to be read."""
    return any(
        _own_name(repository, option) == name for option in sorted(files, key=lambda file: file != name)
    )


def _own_name(repository: IConfigRepository, option: str) -> str:
    """The name that an option's file gives its attack, by which budgets call it."""
    found = repository.load_config(f"attack/{option}")
    return str(OmegaConf.select(found.config, "name", default=option)) if found is not None else option


def _asked(config: Mapping[str, Any]) -> Iterator[str]:
    """Names of the cell's own attacks, which may differ from those of their files."""
    for attack in (_inside(config, "attack"), _inside(config, "detector", "attack")):
        if "name" in attack:
            yield str(attack["name"])


def _inside(config: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    node: Any = config
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}
