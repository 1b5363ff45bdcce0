"""What a hyper-parameter can be chosen by: numbers of validation images, and of no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdm_lightning.errors import nearest
from pdm_lightning.study.checks import at, check_number, choice, number, shown

DIRECTIONS = ("maximize", "minimize")
SAMPLERS = ("tpe", "random", "grid")
PRUNINGS = ("none", "median")
COLLAPSES = ("prune", "keep")


@dataclass(frozen=True)
class Objective:
    """A number of one training.

    Attributes
    ----------
    kind, file, key : str
        Kind of the node that measures it, its file, and the entry there (``value`` and ``n``).
    direction : str
        Out of `DIRECTIONS`.
    attacked : bool
        Whether it takes an attack and a detector.
    """

    kind: str
    file: str
    key: str
    direction: str
    attacked: bool = False


OBJECTIVES = {
    "val_accuracy": Objective("val_clean", "clean.json", "accuracy", "maximize"),
    "val_dbi": Objective("val_clean", "clean.json", "dbi", "minimize"),
    "val_auc": Objective("val_score", "score.json", "auc", "maximize", attacked=True),
    "val_auc_all": Objective("val_score", "score.json", "auc_all", "maximize", attacked=True),
}


@dataclass(frozen=True)
class Settings:
    """The section ``tune`` of a configuration, checked.

    Attributes
    ----------
    objective : str
        Out of `OBJECTIVES`.
    direction : str
        Out of `DIRECTIONS`: the objective's own, unless another one was asked for.
    measured : tuple of str
        All that is measured of a trial: the objective first, then what is recorded beside it.
    trials, startup, seed, seeds : int
    timeout : float or None
        Seconds.
    sampler, pruning, collapsed : str
    """

    objective: str
    direction: str
    measured: tuple[str, ...]
    trials: int
    timeout: float | None
    sampler: str
    startup: int
    seed: int
    seeds: int
    pruning: str
    collapsed: str

    @property
    def attacked(self) -> bool:
        """Whether anything that is measured takes an attack."""
        return any(OBJECTIVES[name].attacked for name in self.measured)


def read(config: Mapping[str, Any]) -> Settings:
    """Check the section ``tune`` and what it asks of the rest of the configuration.

    Raises
    ------
    ValueError
        Names the override to change.
    """
    for key in ("trials", "seeds", "startup"):
        number(config, f"tune.{key}", 1)
    number(config, "tune.seed", 0)
    number(config, "tune.timeout", 0, whole=False, above=True, optional=True)
    for key, known in (("sampler", SAMPLERS), ("pruning", PRUNINGS), ("collapsed", COLLAPSES)):
        choice(config, f"tune.{key}", known)
    tune = at(config, "tune")
    objective, recorded = tune["objective"], tune["record"]
    _known("tune.objective", objective)
    if not isinstance(recorded, list):
        raise ValueError(f"tune.record={shown(recorded)}: a list needed, as 'tune.record=[val_dbi]'")
    for name in recorded:
        _known("tune.record", name)
    if tune["direction"] is not None:
        choice(config, "tune.direction", DIRECTIONS)
    settings = Settings(
        measured=tuple(dict.fromkeys([objective, *recorded])),
        direction=tune["direction"] or OBJECTIVES[objective].direction,
        **{key: tune[key] for key in Settings.__annotations__ if key not in ("measured", "direction")},
    )
    _fits(settings, config)
    return settings


def _known(key: str, name: Any) -> None:
    if name not in OBJECTIVES:
        hint = nearest(str(name), OBJECTIVES) or ":"
        raise ValueError(f"{key}: {shown(name)!r} is unknown{hint} use {', '.join(OBJECTIVES)}")


def _fits(settings: Settings, config: Mapping[str, Any]) -> None:
    attacked = next((name for name in settings.measured if OBJECTIVES[name].attacked), None)
    if attacked and at(config, "attack.name") == "none":
        key = "tune.objective" if attacked == settings.objective else "tune.record"
        raise ValueError(f"{key}={attacked} needs an attack: choose one, as attack=bim_010")
    if settings.pruning == "median" and settings.objective != "val_accuracy":
        raise ValueError(
            "tune.pruning=median compares validation accuracies while a model trains: it needs "
            "tune.objective=val_accuracy"
        )
    check_number("seed", at(config, "seed"), 0)
