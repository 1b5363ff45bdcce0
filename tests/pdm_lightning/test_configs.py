"""Every option of every group composes, and what its `_target_` names takes its keys."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import pytest
import yaml

from pdm_lightning import threat
from pdm_lightning.data.loading import SHARED
from pdm_lightning.stages.build import NOT_ARGUMENTS as OF_MODELS
from pdm_lightning.study.ask import ask
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.validate import validate
from pdm_lightning.study.words import conf_dir
from pdm_lightning.threat import SURROGATES, ThreatModel, check

CONF = conf_dir()
FILES = [path for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "hydra"]
OPTIONS = [(path.parent.name, path.stem) for path in FILES if not path.stem.startswith("_")]
EXPERIMENTS = [name for group, name in OPTIONS if group == "experiment"]
SEARCHES = ["tune_pdm"]
STUDIES = [name for name in EXPERIMENTS if name not in SEARCHES]

# keys of an option that its target does not get, and arguments that the target gets from elsewhere
NOT_ARGUMENTS = {
    "attack": {"cost", "lean"},
    "data": set(SHARED),
    "detector": {"attack"},
    "model": set(OF_MODELS),
    "optimizer": {"schedule"},
}
FROM_ELSEWHERE = {"model": {"in_channels", "num_classes"}, "optimizer": {"params"}}
# what an option cannot do without, and a package of an extra that it needs
NEEDED = {("model", "import"): ["model.target=torchvision.models.resnet18"]}
EXTRAS = {("model", "timm"): "timm"}


@cache
def composed(group: str, name: str) -> Cell:
    # on a CPU, whatever GPUs are here
    (cell,) = ask("plan", [f"{group}={name}", "trainer.device=cpu", *NEEDED.get((group, name), [])])
    return cell


@cache
def cells_of(experiment: str) -> list[Cell]:
    return ask("plan", [f"experiment={experiment}"])


def there(option: tuple[str, str]) -> bool:
    """Whether the package that an option needs is installed."""
    return option not in EXTRAS or find_spec(EXTRAS[option]) is not None


def bind(group: str, spec: Mapping[str, Any]) -> None:
    """Raise a TypeError where a target does not take what an option gives it."""
    target = pkgutil.resolve_name(spec["_target_"])
    signature = inspect.signature(target)
    ignored = {"_target_", "name", "label"} | NOT_ARGUMENTS.get(group, set())
    given = {key: value for key, value in spec.items() if key not in ignored or key in signature.parameters}
    if group == "defense":  # a term without arguments has nn.Module's signature, which takes anything
        target(**given)
    others = FROM_ELSEWHERE.get(group, set()) & signature.parameters.keys()
    signature.bind(**given, **dict.fromkeys(others))


def targets(group: str, option: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What an option builds: itself, or for a defence its loss terms."""
    if group == "defense":
        return [
            {key: value for key, value in term.items() if key != "weight"} for term in option["term"].values()
        ]
    return [option] if "_target_" in option else []


def test_groups_are_found() -> None:
    expected = {"attack", "budget", "data", "defense", "detector", "experiment", "logger"}
    assert {group for group, _ in OPTIONS} == expected | {"model", "optimizer", "threat", "trainer"}
    assert len(OPTIONS) >= 55


@pytest.mark.parametrize(("group", "name"), [pair for pair in OPTIONS if pair[0] != "experiment"])
def test_option_composes_and_its_target_takes_it(group: str, name: str) -> None:
    option = composed(group, name).config[group]
    # a folder of images is called as the folder where nobody names it
    assert option["name"] == (None if name == "image_folder" else name)
    for spec in targets(group, option):
        bind(group, spec)
        if "VAR_KEYWORD" in {
            p.kind.name for p in inspect.signature(pkgutil.resolve_name(spec["_target_"])).parameters.values()
        }:
            continue  # a library's own function, which hands more arguments on
        with pytest.raises(TypeError, match="foo"):
            bind(group, {**spec, "foo": 1})


@pytest.mark.parametrize("group", sorted({group for group, _ in OPTIONS} - {"experiment"}))
def test_options_are_valid(group: str) -> None:
    cells = [composed(known, name) for known, name in OPTIONS if known == group and there((known, name))]
    validate(cells)
    with pytest.raises(ValueError, match=group):
        validate([replace(cells[0], config={**cells[0].config, group: {}})])


def _values(axis: object) -> int:
    """How many values an axis lists; one that is a list itself is one."""
    return 1 if str(axis).startswith("[") else len(str(axis).split(","))


@pytest.mark.parametrize("name", STUDIES)
def test_experiment_has_the_cells_of_its_axes(name: str) -> None:
    sweeper = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())["hydra"]["sweeper"]
    grids = [sweeper["params"] | more for more in [{}, *sweeper.get("also", [])]]
    cells = cells_of(name)
    assert len(cells) == sum(prod(_values(v) for v in grid.values()) for grid in grids)
    assert {cell.config["name"] for cell in cells} == {name}
    # a cell that stands in several parts is one computation: the parts differ in what they show of it
    seen: dict[tuple[str, ...], dict[str, object]] = {}
    for cell in cells:
        settings = {key: value for key, value in cell.config.items() if key not in ("report", "card")}
        assert seen.setdefault(cell.names(), settings) == settings
    assert len(seen) == len(cells) or name == "paper"
    validate(cells)


@pytest.mark.parametrize("name", STUDIES)
def test_no_experiment_asks_for_what_its_threat_model_withholds(name: str) -> None:
    refusals = {
        check(*(cell.config[part] for part in ("attack", "threat", "detector"))) for cell in cells_of(name)
    }
    assert refusals == {""}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_commands_in_an_experiment_s_comments_can_be_typed(name: str) -> None:
    """``pdml run experiment=... word word`` at its head."""
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    commands = re.findall(r"^# pdml run (experiment=\S+(?: [\w.@]+=\S+)+)", text, flags=re.MULTILINE)
    assert commands or name in ("quickstart", *SEARCHES)
    for command in commands:
        assert ask("plan", command.split(" "))


@pytest.mark.parametrize("group", ["attack", "data", "model", "optimizer"])
def test_options_of_one_target_share_their_keys(group: str) -> None:
    """An override that works with one of them works with the others."""
    keys = defaultdict(set)
    for known, name in OPTIONS:
        if known == group:
            option = composed(group, name).config[group]
            keys[option["_target_"]].add(frozenset(option))
    assert {target: len(variants) for target, variants in keys.items()} == dict.fromkeys(keys, 1)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_comments_name_keys_that_exist(path: Path) -> None:
    """`# attack.eps=0.05` stands beside `eps`, and can be typed."""
    group = path.parent.name
    for line in path.read_text().splitlines():
        match = re.match(rf"\s+?(?P<key>\w+): .*#\s+{group}\.(?P<typed>[\w.]+)=", f" {line}")
        if match:
            assert match["typed"].split(".")[-1] == match["key"], line


@pytest.mark.parametrize("path", sorted((CONF / "threat").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configured_threat_model(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    cls = getattr(threat, config["_target_"].removeprefix("pdm_lightning.threat."))
    assert issubclass(cls, ThreatModel)
    assert cls.name == config["name"] == path.stem
    assert cls.grants <= threat.CAPABILITIES.keys()
    assert cls.surrogate in SURROGATES


def test_all_threat_models_are_configured() -> None:
    assert {path.stem for path in (CONF / "threat").glob("*.yaml")} == {
        "gray_box",
        "white_box",
        "black_box",
        "transfer",
    }
