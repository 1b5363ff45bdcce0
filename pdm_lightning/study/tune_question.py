"""What ``pdml tune`` is asked: fixed settings, a search space and an objective; and the cells that answer it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from pdm_lightning.manifest import canonical
from pdm_lightning.study import tune_objectives as objectives
from pdm_lightning.study.budget_names import check_budget
from pdm_lightning.study.cell import Cell, resolve
from pdm_lightning.study.diagnose import check_words, mend
from pdm_lightning.study.launching import HERE
from pdm_lightning.study.specs import data_spec, settings
from pdm_lightning.study.tune_objectives import Settings
from pdm_lightning.study.tune_space import Parameter, corners, joined, place, size, split
from pdm_lightning.study.validate import validate
from pdm_lightning.study.words import CONFIG

EXAMPLE = "'defense.term.rvl.weight=tag(log, interval(0.01, 1))' or defense.q=0.1,0.3,0.5"


@dataclass(frozen=True)
class Question:
    """A search, as it was asked for.

    Attributes
    ----------
    fixed : tuple of str
        The overrides with one value, as typed.
    space : tuple of Parameter
    settings : Settings
    corners : tuple of Cell
        Points that stand for the space, see `tune_space.corners`; the first one for what all points share.
    loader : ConfigLoader
    """

    fixed: tuple[str, ...]
    space: tuple[Parameter, ...]
    settings: Settings
    corners: tuple[Cell, ...]
    loader: ConfigLoader = field(repr=False, compare=False)

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of one point of the space: what is fixed is so at all of them."""
        return self.corners[0].config

    @property
    def trials(self) -> int:
        """How many trials there will be: those asked for, and no more than a grid has points."""
        points = size(self.space) if self.settings.sampler == "grid" else None
        return min(self.settings.trials, points or self.settings.trials)

    def words(self, chosen: Mapping[str, str], seed: int) -> list[str]:
        """All overrides of one training.

        Parameters
        ----------
        chosen : mapping of str to str
            A point of the space: value by key.
        seed : int
            Added to the study's own: 0 for the first training of a trial.
        """
        kept = [word for word in self.fixed if place(word.partition("=")[0]) != "seed"]
        return [
            *kept,
            *(f"{key}={value}" for key, value in chosen.items()),
            f"seed={self.config['seed'] + seed}",
        ]

    def cell(self, chosen: Mapping[str, str], seed: int = 0) -> Cell:
        """Compose one training."""
        words = self.words(chosen, seed)
        return resolve(compose(words, self.loader), words)

    @property
    def described(self) -> dict[str, Any]:
        """All that the answer depends on, in plain values; what says where or how fast it is found is left out."""
        config = self.config
        budget = {key: value for key, value in config["budget"].items() if key != "name"}
        if self.settings.pruning == "none":
            budget["train"] = {key: value for key, value in budget["train"].items() if key != "segment"}
        fixed = {
            "data": data_spec(config["data"], {}),
            "augment": {key: config["data"].get(key) for key in ("augment", "pairs")},
            "budget": budget,
            **{key: settings(config[key]) for key in ("model", "defense", "optimizer")},
            **{key: config[key] for key in ("features", "seed")},
        }
        if self.settings.attacked:
            fixed |= {key: settings(config[key]) for key in ("attack", "threat", "detector")}
            fixed["craft"] = {key: config["craft"][key] for key in ("fpr", "limits")}
            fixed["evaluate"] = {key: config["evaluate"][key] for key in ("bootstrap", "min_n")}
        asked = {
            key: value for key, value in asdict(self.settings).items() if key not in ("trials", "timeout")
        }
        space = {p.key: {**asdict(p), "text": ""} for p in self.space}
        return {"asked": asked, "space": space, "fixed": fixed}

    @cached_property
    def key(self) -> str:
        """Name of the study: sixteen hexadecimal digits of the hash of all that the answer depends on."""
        return hashlib.sha256(canonical(self.described).encode()).hexdigest()[:16]


def read(overrides: list[str], loader: ConfigLoader) -> Question:
    """Read a command line, and check all that can be wrong with it before anything is computed.

    Raises
    ------
    ValueError
        Names the word that cannot be met, and what to type instead.
    """
    check_words(overrides, loader)
    fixed, space = split(overrides, loader)
    # an override inside a group is checked against an option that the search may choose
    known = {tuple(words := _at(fixed, corners(space)[:1])[0]): compose(words, loader)}
    asked = known[tuple(words)].hydra
    if asked.launcher._target_ != HERE:
        raise ValueError(
            "hydra/launcher: pdml tune works in its own process: type the same command in several processes, or jobs, "
            "and they share the trials"
        )
    params = asked.sweeper.get("params") or {}
    fixed, space = joined({str(key): value for key, value in params.items()}, overrides, loader)
    if not space:
        raise ValueError(f"pdml tune needs something to search: write a value as {EXAMPLE}")
    cells = []
    for words in _at(fixed, corners(space)):
        config = known.get(tuple(words))
        cells.append(resolve(compose(words, loader) if config is None else config, words))
    question = Question(tuple(fixed), tuple(space), objectives.read(cells[0].config), tuple(cells), loader)
    _check_space(question)
    check_budget(cells, overrides, loader)
    validate(cells)
    return question


def _at(fixed: list[str], points: list[dict[str, str]]) -> list[list[str]]:
    """All overrides of each point; of none, those that are fixed."""
    return [[*fixed, *(f"{key}={value}" for key, value in point.items())] for point in points or [{}]]


def compose(words: list[str], loader: ConfigLoader) -> DictConfig:
    """Compose a configuration; Hydra's errors in one line."""
    try:
        config = loader.load_configuration(CONFIG, list(words), RunMode.RUN)
    except HydraException as error:
        raise ValueError(mend(error, words, loader)) from error
    assert isinstance(config, DictConfig)
    return config


def fixed_words(words: list[str], loader: ConfigLoader) -> list[str]:
    """The overrides that have one value."""
    return split(words, loader)[0]


def _check_space(question: Question) -> None:
    settings, space = question.settings, question.space
    endless = [p for p in space if not p.values]
    if settings.sampler == "grid" and endless:
        raise ValueError(
            f"tune.sampler=grid: {endless[0].key}={endless[0].text} has no last value: list some with choice(...) or "
            "range(...), or use tune.sampler=tpe"
        )
    for parameter in space:
        if parameter.place.partition(".")[0] == "detector" and not settings.attacked:
            raise ValueError(
                f"{parameter.key}={parameter.text}: {', '.join(settings.measured)} do not depend on the detector: use "
                "tune.objective=val_auc"
            )
