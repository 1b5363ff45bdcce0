"""Checks of the settings that no class has: those of the configuration's main file, and a budget's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf

from pdm_lightning.errors import nearest
from pdm_lightning.study.checks import at, mapping, number, only, present
from pdm_lightning.study.words import CONFIG, conf_dir

Config = dict[str, Any]


@lru_cache(maxsize=1)
def _names() -> dict[str, list[str]]:
    """What each name of the main file holds, its groups among them; nothing where another check knows, or any may."""
    whole = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{CONFIG}.yaml"), resolve=False)
    assert isinstance(whole, dict)
    listed = [next(iter(entry)).split()[-1] for entry in whole.pop("defaults") if isinstance(entry, Mapping)]
    known: dict[str, list[str]] = {group: [] for group in listed if "/" not in group}
    for key, part in whole.items():
        known[str(key)] = list(part) if isinstance(part, dict) and key != "paths" else []
    return known


def names(config: Config) -> None:
    """ValueError for a name that the main file, or a part of it, has not; places may be given names at will."""
    known = _names()
    for key in config:
        if key not in known:
            raise ValueError(f"{key}: there is no such option{nearest(str(key), known) or ': leave it out'}")
        if known[key]:
            only(config, key, known[key])


def budget(config: Config) -> None:
    """ValueError for a training of no length, a cap that is none, and a name that a budget has not."""
    only(config, "budget", ("name", "label", "train", "images", "iterations", "aim"))
    only(config, "budget.train", ("steps", "epochs", "batch_size", "segment", "log_every"))
    train = at(config, "budget.train")
    number(config, "budget.train.steps", 1, optional=True)
    number(config, "budget.train.epochs", 0, whole=False, above=True, optional=True)
    number(config, "budget.train.batch_size", 1)
    number(config, "budget.train.segment", 1)
    present(config, "budget.train.log_every", number, 1)
    if train["steps"] is None and train["epochs"] is None:
        raise ValueError("budget.train.steps=null and budget.train.epochs=null: set one of them")
    for cost in mapping(config, "budget.images"):
        number(config, f"budget.images.{cost}", 1, optional=True)
    caps = mapping(config, "budget.iterations") if config["budget"].get("iterations") else {}
    for name, cap in caps.items():
        for key in [f"{name}.{field}" for field in cap] if isinstance(cap, Mapping) else [name]:
            number(config, f"budget.iterations.{key}", 1)
