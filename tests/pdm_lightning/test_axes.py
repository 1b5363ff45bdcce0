"""The cells of a sweep are those that Hydra would compose one by one, with each option composed once."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig

from pdm_lightning.study.ask import ask
from pdm_lightning.study.axes import expand, parse_axes
from pdm_lightning.study.cell import Cell, resolve
from pdm_lightning.study.words import CONFIG, config_loader

GROUPS = {
    "data": ["digits", "cifar10"],
    "defense": ["ce", "pdm_printed"],
    "attack": ["fgsm_005", "bim"],
    "model": ["resnet8", "resnet20"],
}
PLAIN = {"seed": ["0", "1"], "attack.eps": ["0.02", "0.1"], "detector.bandwidth": ["validation", "0.26"]}


class Counting:
    """Composes, and remembers what it was asked for."""

    def __init__(self, loader: ConfigLoader) -> None:
        self.loader, self.calls = loader, list[tuple[str, ...]]()

    def __call__(self, overrides: list[str]) -> DictConfig:
        self.calls.append(tuple(overrides))
        return self.loader.load_configuration(CONFIG, overrides, RunMode.RUN)


@pytest.fixture
def compose() -> Counting:
    return Counting(config_loader())


def sweep(compose: Counting, axes: dict[str, list[str]]) -> list[Cell]:
    words = [f"{key}={','.join(values)}" for key, values in axes.items()]
    return list(expand([], words, compose, compose.loader))


def test_an_axis_that_the_command_line_replaces_is_not_read() -> None:
    """An interval of an experiment is searched by `pdml tune`; a command that names its key sweeps it all the same."""
    loader = config_loader()
    axes = parse_axes(["defense.q=interval(0,1)", "defense=ce,pdm"], ["defense.q=0.1,0.2"], loader)
    assert [axis.words for axis in axes] == [("0.1", "0.2"), ("ce", "pdm")]
    with pytest.raises(ValueError, match=r"defense.q=interval\(0,1\): only lists"):
        parse_axes(["defense.q=interval(0,1)"], [], loader)


def test_cells_equal_full_composes(compose: Counting) -> None:
    axes = {**GROUPS, "budget": ["cpu", "paper"], **PLAIN}
    cells = sweep(compose, axes)
    combinations = list(itertools.product(*([f"{key}={v}" for v in values] for key, values in axes.items())))
    assert [cell.overrides for cell in cells] == combinations
    for place in random.Random(0).sample(range(len(cells)), 50):
        full = compose.loader.load_configuration(CONFIG, list(combinations[place]), RunMode.RUN)
        assert cells[place].config == resolve(full, combinations[place]).config


def test_each_option_is_composed_once(compose: Counting) -> None:
    cells = sweep(compose, {**GROUPS, "data": ["digits", "mnist", "cifar10"], "seed": ["0", "1"]})
    assert len(cells) == 3 * 2**4
    # the first cell, two other data sets and one other option of three groups; no seed
    assert len(compose.calls) == 1 + 2 + 3


def test_an_option_that_reaches_further_is_composed_with_each_of_the_others(compose: Counting) -> None:
    """A budget chooses the optimizer, too: the options of other groups are composed once under each budget."""
    cells = sweep(compose, {**GROUPS, "budget": ["cpu", "paper"]})
    assert len(set(compose.calls)) == len(compose.calls)
    assert len(compose.calls) == 2 * (1 + 4)
    optimizers = {(cell.config["budget"]["name"], cell.config["optimizer"]["name"]) for cell in cells}
    assert optimizers == {("cpu", "adamw"), ("paper", "sgd_paper")}


def test_cells_share_nothing(compose: Counting) -> None:
    first, second = sweep(compose, {"seed": ["0", "1"]})
    first.config["attack"]["eps"] = 99
    assert second.config["attack"]["eps"] == 0.1


def test_command_line_narrows_an_experiment() -> None:
    cells = ask("plan", ["experiment=table2", "defense=ce", "attack=fgsm_005,jsma", "seed=3"])
    assert [(cell.name("defense"), cell.name("attack")) for cell in cells] == [
        ("ce", "fgsm_005"),
        ("ce", "jsma"),
    ]
    assert {cell.config["seed"] for cell in cells} == {3}
    assert {cell.config["name"] for cell in cells} == {"table2"}


def test_command_line_adds_an_axis_to_an_experiment() -> None:
    cells = ask("plan", ["experiment=table1", "seed=range(0,3)"])
    assert [cell.config["seed"] for cell in cells[:3]] == [0, 1, 2]
    assert len(cells) == 4 * 3


def test_names_tell_overridden_values() -> None:
    cells = ask("plan", ["-m", "attack=fgsm,bim", "attack.eps=0.1,0.2"])
    assert [cell.name("attack") for cell in cells] == [
        "fgsm[eps=0.1]",
        "fgsm[eps=0.2]",
        "bim[eps=0.1]",
        "bim[eps=0.2]",
    ]


def test_experiment_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "name: mine\n"
        "hydra:\n"
        "  mode: MULTIRUN\n"
        "  sweeper: {params: {defense: 'ce,pdm', 'attack.eps': '0.1,0.2'}}\n"
    )
    cells = ask("plan", ["--config-dir", str(tmp_path), "experiment=mine", "attack.eps=0.3"])
    assert [(cell.config["defense"]["name"], cell.config["attack"]["eps"]) for cell in cells] == [
        ("ce", 0.3),
        ("pdm", 0.3),
    ]


def test_searchpath_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "mine.yaml").write_text("defaults: [fgsm]\nname: mine\n")
    (cell,) = ask("plan", [f"hydra.searchpath=[file://{tmp_path}]", "attack=mine"])
    assert cell.name("attack") == "mine"


def test_glob_leaves_out_what_is_only_a_part() -> None:
    names = {cell.config["defense"]["name"] for cell in ask("plan", ["-m", "defense=glob(*)"])}
    assert len(names) == 10
    assert "_terms" not in names
