"""Values that are wrong are named before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pdm_lightning.data.sources import check_channels, pair
from pdm_lightning.models.library import check_arch, library_of
from pdm_lightning.optimization import lr_factor, make_optimizer
from pdm_lightning.stages.build import NOT_ARGUMENTS, build_classifier, build_loss
from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.store import ON_STALE
from pdm_lightning.study import validate_defense, validate_detector, validate_report, validate_settings
from pdm_lightning.study.budget_names import COSTS
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.checks import (
    arguments,
    at,
    built,
    caps,
    check_number,
    choice,
    flag,
    has,
    mapping,
    number,
    only,
    present,
    text,
    trainer,
    words,
)
from pdm_lightning.study.probes import RUNS
from pdm_lightning.study.tracked import check_logger
from pdm_lightning.threat import surrogate_of

Config = dict[str, Any]


def validate(cells: Iterable[Cell]) -> None:
    """Check the values and build the small objects of every cell, each part once.

    Raises
    ------
    ValueError
        Names the override to change.
    """
    seen: set[str] = set()
    for cell in cells:
        validate_settings.names(cell.config)
        for check, parts in _CHECKS.items():
            part = {key: cell.config.get(key) for key in parts}
            told = check.__name__ + json.dumps(part, sort_keys=True, default=str)
            if told not in seen:
                seen.add(told)
                check(cell.config)


def _study(config: Config) -> None:
    number(config, "seed", 0)
    number(config, "features.train_per_class", 1)
    number(config, "craft.batch_size", 1, optional=True)
    number(config, "craft.micro_batch", 1, optional=True)
    number(config, "craft.devices", 1)
    flag(config, "craft.fold")
    number(config, "evaluate.bootstrap", 1)
    number(config, "evaluate.min_n", 1)
    flag(config, "evaluate.worst_case")
    validate_report.rates(config)
    choice(config, "craft.limits", ("validation", "loo"))
    choice(config, "card.run", RUNS)
    number(config, "card.images", 1)
    number(config, "card.self_test", 1)
    number(config, "measure.images", 3)
    validate_report.factors(config)
    number(config, "tsne.points", 10)
    number(config, "tsne.perplexity", 1, whole=False)


def _places(config: Config) -> None:
    text(config, "paths.output")
    output = Path(config["paths"]["output"])
    if output.exists() and not output.is_dir():
        raise ValueError(f"paths.output={output}: that is a file: name a folder")
    choice(config, "store.on_stale", ON_STALE)


def _data(config: Config) -> None:
    data = mapping(config, "data")
    if data.get("augment") is not None:
        only(config, "data.augment", ("crop", "flip"))
    text(config, "data.name", optional=True)
    present(config, "data.root", text)
    present(config, "data.download", flag)
    present(config, "data.val_size", number, 0, whole=False, above=True)
    present(config, "data.split_seed", number, 0)
    present(config, "data.augment.crop", number, 0)
    present(config, "data.augment.flip", flag)
    present(config, "data.pairs", choice, ("auto", "always"))
    if data.get("val_size", 0) >= 1:
        number(config, "data.val_size", 1)
    with built("data", data):
        if data.get("size") is not None:
            pair(data["size"])
        check_channels(data.get("channels"))


def _model(config: Config, place: str = "model") -> None:
    """Build a model of this project; any other one may be large, or need the data's own classes and channels."""
    model = mapping(config, place)
    text(config, f"{place}.name")
    for key in ("embedding", "weights"):
        if key in model:
            text(config, f"{place}.{key}", optional=True)
    if model.get("target", "") is None:
        raise ValueError(f"{place}.target=null: a dotted path needed, as {place}.target=my_package.make_net")
    if ":" in str(model.get("target", "")):
        dotted = str(model["target"]).replace(":", ".")
        raise ValueError(f"{place}.target={model['target']}: a dotted path needed, {place}.target={dotted}")
    known = library_of(model)
    with built(place, model):
        if known is not None:
            check_arch(known, str(model.get("arch")))
    arguments(place, model, NOT_ARGUMENTS, ("in_channels", "num_classes"))
    if known is None and str(model["_target_"]).startswith("pdm_lightning."):
        with built(place, model), torch.random.fork_rng(devices=[]):
            build_classifier({"model": model, "defense": {}}, num_classes=10, in_channels=3)


def _attack(config: Config, place: str = "attack") -> None:
    attack, ignored = mapping(config, place), ("cost", "lean")
    text(config, f"{place}.name")
    spec = {key: value for key, value in attack.items() if key not in ("name", "label", *ignored)}
    if spec.get("confidence") == "median_margin":  # measured on each model later
        spec["confidence"] = 0.0
    has(place, attack, "needs", "attacks.Attack")
    arguments(place, spec)
    with built(place, attack):
        instantiate(spec)
    present(config, f"{place}.cost", choice, COSTS)
    at(config, f"budget.images.{attack.get('cost', 'medium')}")
    caps(config, attack)


def _detector(config: Config) -> None:
    _plain(config, "detector", "score", "detection.Detector", ("attack",))
    if config["detector"].get("attack") is not None:
        _attack(config, "detector.attack")


def _threat(config: Config) -> None:
    _plain(config, "threat", "grants", "pdm_lightning.threat.ThreatModel")
    surrogate = surrogate_of(config["threat"])
    if surrogate == "proxy":
        proxy = mapping(config, "threat.proxy")
        _model(config, "threat.proxy.model")
        number(config, "threat.proxy.seed", 0)
        term = {key: value for key, value in proxy.items() if key not in ("model", "seed")}
        with built("threat.proxy", term):
            instantiate({"_target_": "pdm_lightning.losses.Distillation", **term})
    if surrogate == "model":
        mapping(config, "threat.own")
        number(config, "threat.own.seed", 0)
        _defense(config, "threat.own.defense")


def _plain(config: Config, group: str, attribute: str, base: str, others: tuple[str, ...] = ()) -> None:
    option = mapping(config, group)
    text(config, f"{group}.name")
    has(group, option, attribute, base)
    arguments(group, option, others)
    with built(group, option):
        # what an option holds in store for others (a proxy's model) is not built with it
        settings = {key: value for key, value in option.items() if key not in ("name", "label", *others)}
        instantiate(settings, _recursive_=False)


def _defense(config: Config, place: str = "defense") -> None:
    defense = mapping(config, place)
    text(config, f"{place}.name")
    words(config, f"{place}.use", mapping(config, f"{place}.term"))
    only(config, place, ("name", "label", "use", "term", "q", "readout", "pairs", "forward"))
    validate_defense.terms(config, place)
    if not defense["use"] and defense.get("readout") != "direct":
        raise ValueError(
            f"{place}.use=[]: use some of {', '.join(defense['term'])}; {place}=frozen is for taking no step"
        )
    number(config, f"{place}.q", 0, 1, whole=False)
    choice(config, f"{place}.readout", ("direct", "reverse"))
    choice(config, f"{place}.pairs", ("auto", "always"))
    choice(config, f"{place}.forward", ("concatenated", "separate"))
    for name in defense["use"]:
        term = mapping(config, f"{place}.term.{name}")
        number(config, f"{place}.term.{name}.weight", 0, whole=False)
        arguments(f"{place}.term.{name}", term, ("weight",))
        with built(f"{place}.term.{name}", term):
            instantiate({key: value for key, value in term.items() if key != "weight"})
    with built(place, {"name": defense["name"], "readout": defense["readout"]}):
        if defense["use"]:
            build_loss(defense)


def _optimizer(config: Config) -> None:
    """Build the optimizer of one small layer and the schedule of a short training."""
    optimizer = mapping(config, "optimizer")
    text(config, "optimizer.name")
    present(config, "optimizer.lr", number, 0, whole=False, above=True)
    present(config, "optimizer.weight_decay", number, 0, whole=False)
    arguments("optimizer", optimizer, ("schedule", "weight_decay"), ("params",))
    if optimizer.get("differentiable"):
        raise ValueError(
            "optimizer.differentiable=true: a training takes no gradient through its steps: leave it out"
        )
    schedule = optimizer.get("schedule")
    if schedule is not None:
        _schedule(config, mapping(config, "optimizer.schedule"))
    with built("optimizer", optimizer), torch.random.fork_rng(devices=[]):
        make_optimizer(nn.Linear(1, 1), optimizer, brief=True)
        lr_factor(schedule, total_steps=100)


def _schedule(config: Config, schedule: Mapping[str, Any]) -> None:
    only(config, "optimizer.schedule", ("kind", "milestones", "gamma", "warmup"))
    choice(config, "optimizer.schedule.kind", ("multistep", "cosine", "constant"))
    for key in ("warmup", "gamma"):
        present(config, f"optimizer.schedule.{key}", number, 0, 1, whole=False)
    milestones = [] if schedule.get("milestones") is None else schedule["milestones"]
    if not isinstance(milestones, list):
        raise ValueError(
            f"optimizer.schedule.milestones={milestones}: a list of fractions needed, as '[0.5,0.75]'"
        )
    for value in milestones:
        check_number("optimizer.schedule.milestones", value, 0, 1, whole=False)


_CHECKS: dict[Callable[[Config], None], tuple[str, ...]] = {
    _study: ("seed", "features", "craft", "evaluate", "card", "measure", "tsne"),
    validate_report.report: ("report", "name"),
    _places: ("paths", "store"),
    check_logger: ("logger",),
    _data: ("data",),
    validate_settings.budget: ("budget",),
    trainer: ("trainer", "budget"),
    _model: ("model",),
    _defense: ("defense",),
    validate_defense.layers: ("defense", "model"),
    validate_defense.devices: ("defense", "trainer"),
    _optimizer: ("optimizer",),
    _attack: ("attack", "budget"),
    _detector: ("detector", "budget"),
    _threat: ("threat",),
    validate_detector.fitted_on: ("detector",),
    validate_detector.layers: ("detector", "model", "threat"),
    validate_detector.sizes: ("detector", "features", "data"),
}
