"""The cells of a sweep are those that Hydra would compose one by one, with each option composed or read once."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

from pdm_lightning.study.ask import ask
from pdm_lightning.study.axes import expand, parse_axes
from pdm_lightning.study.cell import Cell, resolve
from pdm_lightning.study.words import CONFIG, conf_dir, config_loader, options

GROUPS = {
    "data": ["digits", "cifar10"],
    "defense": ["ce", "pdm_printed"],
    "attack": ["fgsm_005", "bim"],
    "model": ["resnet8", "resnet20"],
}
PLAIN = {"seed": ["0", "1"], "attack.eps": ["0.02", "0.1"], "detector.bandwidth": ["validation", "0.26"]}


class Counting:
    """Composes, and remembers what it was asked for."""

    def __init__(self, loader: ConfigLoaderImpl) -> None:
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


#: Options of every kind: of one file, of several, with options of other groups inside, with references, far-reaching.
LARGE = {
    "data": ["digits", "cifar10", "mnist"],
    "model": ["resnet8", "resnet20"],
    "defense": ["ce", "pdm_printed", "siamese_rvl"],
    "attack": ["fgsm_005", "bim", "cw_wb", "selective_pgd_l2", "min_norm_wb"],
    "threat": ["white_box", "black_box", "transfer"],
    "detector": ["kde", "lid", "mahalanobis_multi", "msp"],
    "budget": ["cpu", "paper", "lab"],
    "features.train_per_class": ["100", "200"],
    "budget.aim": ["all", "runner_up"],
    "defense.term.rvl.weight": ["0.1", "1"],
    "seed": ["0", "1"],
}


def test_an_axis_that_the_command_line_replaces_is_not_read() -> None:
    """An interval of an experiment is searched by `pdml tune`; a command that names its key sweeps it all the same."""
    loader = config_loader()
    axes = parse_axes(["defense.q=interval(0,1)", "defense=ce,pdm"], ["defense.q=0.1,0.2"], loader)
    assert [axis.words for axis in axes] == [("0.1", "0.2"), ("ce", "pdm")]
    with pytest.raises(ValueError, match=r"defense.q=interval\(0,1\): only lists"):
        parse_axes(["defense.q=interval(0,1)"], [], loader)


def test_cells_equal_full_composes(compose: Counting) -> None:
    """Seventeen thousand cells, of which fifty are composed whole."""
    cells = sweep(compose, LARGE)
    assert len(compose.calls) < 40
    combinations = list(itertools.product(*([f"{key}={v}" for v in values] for key, values in LARGE.items())))
    assert [cell.overrides for cell in cells] == combinations
    for place in random.Random(0).sample(range(len(cells)), 50):
        full = compose.loader.load_configuration(CONFIG, list(combinations[place]), RunMode.RUN)
        assert json.dumps(cells[place].config) == json.dumps(resolve(full, combinations[place]).config)


def test_swept_values_inside_an_option(compose: Counting) -> None:
    axes = {**GROUPS, "budget": ["cpu", "paper"], **PLAIN}
    cells = sweep(compose, axes)
    for cell in random.Random(1).sample(cells, 10):
        full = compose.loader.load_configuration(CONFIG, list(cell.overrides), RunMode.RUN)
        assert cell.config == resolve(full, cell.overrides).config


@pytest.mark.parametrize("group", ["data", "model", "defense", "attack", "threat", "detector", "optimizer"])
def test_every_option_equals_a_full_compose(group: str, compose: Counting) -> None:
    """Also with values set inside it: each shipped option as it is put together, and as Hydra composes it."""
    fixed = ["data.root=x", f"+{group}.mine=1", f"++{group}.name=other"]
    words = [*(word for word in fixed if not word.startswith(group)), f"{group}=glob(*)"]
    cells = list(expand([], words, compose, compose.loader))
    assert len(cells) == len(options(compose.loader, group))
    for cell in cells:
        full = compose.loader.load_configuration(CONFIG, list(cell.overrides), RunMode.RUN)
        assert cell.config == resolve(full, cell.overrides).config


def test_an_option_that_reaches_nowhere_is_read_from_its_file(compose: Counting) -> None:
    cells = sweep(compose, {**GROUPS, "data": ["digits", "mnist", "cifar10"], "seed": ["0", "1"]})
    assert len(cells) == 3 * 2**4
    assert len(compose.calls) == 1


def test_an_option_with_another_group_inside_is_composed_once(compose: Counting) -> None:
    cells = sweep(compose, {**GROUPS, "threat": ["gray_box", "black_box", "transfer", "white_box"]})
    assert len(cells) == 4 * 2**4
    assert [call[-1] for call in compose.calls] == ["threat=gray_box", "threat=black_box", "threat=transfer"]


def test_an_option_that_reaches_further_is_composed_with_each_of_the_others(compose: Counting) -> None:
    """A budget chooses the optimizer, too: what is not read from files is composed once under each budget."""
    axes = {**GROUPS, "threat": ["gray_box", "black_box"], "budget": ["cpu", "paper"]}
    cells = sweep(compose, axes)
    assert len(set(compose.calls)) == len(compose.calls)
    assert len(compose.calls) == 2 * (1 + 1)
    optimizers = {(cell.config["budget"]["name"], cell.config["optimizer"]["name"]) for cell in cells}
    assert optimizers == {("cpu", "adamw"), ("paper", "sgd_paper")}


def own_options(folder: Path, **files: str) -> Counting:
    """Configuration files of the user's, each given as group__option="text"."""
    for name, text in files.items():
        group, option = name.split("__")
        (folder / group).mkdir(exist_ok=True)
        (folder / group / f"{option}.yaml").write_text(text)
    return Counting(config_loader(str(folder)))


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [fgsm, _self_]\nlabel: '${name} ${seed} ${.name} ${attack.eps}'\n",
        "defaults: [fgsm, _self_]\nlabel: ${oc.select:data.nothing,${name}}\n",
        "defaults: [fgsm]\neps: 0.3\n",  # without _self_
        "defaults: [fgsm, _self_]\nlabel: ${oc.env:PDML_LABEL,none}\nname: ${budget.aim}\n",
        "# @package _global_\nattack: {name: mine, _target_: attacks.FGSM, eps: 0.3}\nseed: 7\n",
        "defaults: [/model@other: resnet8, fgsm, _self_]\n",
        "defaults: [{override /model@_global_.model: resnet20}, _self_]\nname: mine\n_target_: attacks.FGSM\n",
    ],
)
def test_options_of_the_user_s_own(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file does: references, packages, other groups."""
    monkeypatch.setenv("PDML_LABEL", "of the environment")
    compose = own_options(tmp_path, attack__mine=text)
    axes = {"attack": ["bim", "mine"], "budget": ["cpu", "lab"], "threat": ["gray_box"]}
    for first in ("bim", "mine"):
        axes["attack"].sort(key=lambda option, first=first: option != first)  # type: ignore[misc]
        for cell in sweep(compose, axes):
            full = compose.loader.load_configuration(CONFIG, list(cell.overrides), RunMode.RUN)
            assert cell.config == resolve(full, cell.overrides).config, cell.overrides


def test_an_experiment_that_writes_into_an_option(tmp_path: Path) -> None:
    """Its values stand over those of every option, so that no option's files tell the whole."""
    text = "# @package _global_\nattack: {eps: 0.3}\nthreat: {more: 1}\n"
    compose = own_options(tmp_path, experiment__mine=text)
    axes = {"attack": ["fgsm", "bim_005"], "threat": ["gray_box", "white_box"], "defense": ["ce", "rce"]}
    cells = sweep(compose, {"experiment": ["mine"], **axes})
    assert {(cell.config["attack"]["eps"], cell.config["threat"]["more"]) for cell in cells} == {(0.3, 1)}
    for cell in cells:
        full = compose.loader.load_configuration(CONFIG, list(cell.overrides), RunMode.RUN)
        assert cell.config == resolve(full, cell.overrides).config


def test_a_value_that_an_option_has_not_is_hydra_s_error(compose: Counting) -> None:
    words = ["attack=fgsm,cw", "attack.eps=0.1"]
    with pytest.raises(HydraException, match=r"Could not override 'attack\.eps'"):
        list(expand([], words, compose, compose.loader))


def test_a_missing_value_is_named(tmp_path: Path) -> None:
    compose = own_options(tmp_path, attack__mine="name: mine\n_target_: attacks.FGSM\neps: ???\n")
    with pytest.raises(MissingMandatoryValue, match=r"attack\.eps"):
        sweep(compose, {"attack": ["fgsm", "mine"]})
    cells = sweep(compose, {"attack": ["fgsm", "mine"], "attack.eps": ["0.1", "0.2"]})
    assert [cell.config["attack"]["eps"] for cell in cells] == [0.1, 0.2, 0.1, 0.2]


def test_cells_share_what_they_have_in_common(compose: Counting) -> None:
    first, second = sweep(compose, {"seed": ["0", "1"]})
    assert first.config["attack"] is second.config["attack"]
    assert first.config is not second.config


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
    assert names == {path.stem for path in (conf_dir() / "defense").glob("[!_]*.yaml")}
