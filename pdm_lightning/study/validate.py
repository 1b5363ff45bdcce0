"""Values that are wrong are named before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from pdm_lightning.report.results import FIGURE_KINDS, TABLES
from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.study.cell import Cell


def validate(cells: Iterable[Cell]) -> None:
    """Check the numbers and build the small objects of every cell, each once.

    Raises
    ------
    ValueError
        Names the override to change.
    """
    seen: set[str] = set()
    for cell in cells:
        for name, check in _CHECKS.items():
            part = {key: cell.config.get(key) for key in _PARTS[name]}
            told = name + json.dumps(part, sort_keys=True, default=str)
            if told not in seen:
                seen.add(told)
                check(cell.config)


def _number(
    config: dict[str, Any], key: str, least: float, *, kind: type = int, optional: bool = False
) -> None:
    value: Any = config
    for part in key.split("."):
        value = value[part]
    if value is None and optional:
        return
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or value < least:
        noun = "a whole number" if kind is int else "a number"
        raise ValueError(
            f"{key}={value}: {noun} of at least {least} needed{' (or null)' if optional else ''}"
        )


def _numbers(config: dict[str, Any]) -> None:
    _number(config, "seed", 0)
    _number(config, "features.train_per_class", 1)
    _number(config, "craft.batch_size", 1, optional=True)
    _number(config, "evaluate.bootstrap", 1)
    _number(config, "evaluate.min_n", 1)
    _number(config, "tsne.points", 10)
    _number(config, "tsne.perplexity", 1, kind=float)


def _budget(config: dict[str, Any]) -> None:
    _number(config, "budget.train.steps", 1, optional=True)
    _number(config, "budget.train.epochs", 0.001, kind=float, optional=True)
    _number(config, "budget.train.batch_size", 1)
    _number(config, "budget.train.segment", 1)
    train = config["budget"]["train"]
    if train["steps"] is None and train["epochs"] is None:
        raise ValueError("budget.train.steps and budget.train.epochs are both null: set one of them")
    for cost in config["budget"]["images"]:
        _number(config, f"budget.images.{cost}", 1, optional=True)
    for name in config["budget"].get("iterations") or {}:
        _number(config, f"budget.iterations.{name}", 1)


def _report(config: dict[str, Any]) -> None:
    for key, known in (("tables", TABLES), ("figures", FIGURE_KINDS)):
        for word in config["report"][key]:
            if word not in known:
                raise ValueError(f"report.{key}: {word!r} is unknown: use {', '.join(known)}")
    name = str(config["name"])
    if not name or name.startswith(".") or "/" in name:
        raise ValueError(f"name={name!r}: a folder's name needed, without '/' and not beginning with a dot")


def _attack(config: dict[str, Any]) -> None:
    attack = {
        key: value for key, value in config["attack"].items() if key not in ("name", "label", "cost", "lean")
    }
    if attack.get("confidence") == "median_margin":
        attack["confidence"] = 0.0
    instantiate(attack, f"attack={config['attack']['name']}")
    cost, known = config["attack"].get("cost", "medium"), config["budget"]["images"]
    if cost not in known:
        raise ValueError(f"attack.cost={cost}: use {', '.join(known)}")


def _detector(config: dict[str, Any]) -> None:
    spec = {key: value for key, value in config["detector"].items() if key not in ("name", "label")}
    instantiate(spec, f"detector={config['detector']['name']}")


def _defense(config: dict[str, Any]) -> None:
    defense = config["defense"]
    unknown = [name for name in defense["use"] if name not in defense["term"]]
    if unknown or not defense["use"]:
        raise ValueError(f"defense.use={defense['use']}: use some of {', '.join(defense['term'])}")
    for name in defense["use"]:
        spec = {key: value for key, value in defense["term"][name].items() if key != "weight"}
        instantiate(spec, f"defense.term.{name}")
        _number(config, f"defense.term.{name}.weight", 0, kind=float)
    _number(config, "defense.q", 0, kind=float)
    if defense["q"] > 1:
        raise ValueError(f"defense.q={defense['q']}: a probability from 0 to 1 needed")
    for key, known in _DEFENSE_WORDS.items():
        if defense[key] not in known:
            raise ValueError(f"defense.{key}={defense[key]}: use {' or '.join(known)}")


_DEFENSE_WORDS = {
    "readout": ("direct", "reverse"),
    "pairs": ("auto", "always"),
    "forward": ("concatenated", "separate"),
}
_CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "numbers": _numbers,
    "budget": _budget,
    "report": _report,
    "attack": _attack,
    "detector": _detector,
    "defense": _defense,
}
_PARTS = {
    "numbers": ("seed", "features", "craft", "evaluate", "tsne"),
    "budget": ("budget",),
    "report": ("report", "name"),
    "attack": ("attack", "budget"),
    "detector": ("detector",),
    "defense": ("defense",),
}
