"""Search spaces: every form of Hydra's grammar, what is drawn from it, and what is no search."""

from __future__ import annotations

import math
import re
import runpy
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pdm_lightning.cli import main
from pdm_lightning.study import tune_question
from pdm_lightning.study.ask import ask
from pdm_lightning.study.tune_objectives import COLLAPSES, OBJECTIVES, PRUNINGS, SAMPLERS, Settings
from pdm_lightning.study.tune_space import SEARCHABLE, Parameter, corners, joined, size, split
from pdm_lightning.study.words import conf_dir, config_loader

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_search.py")))


@pytest.fixture(scope="module")
def loader() -> ConfigLoader:
    return config_loader()


def one(word: str, loader: ConfigLoader) -> Parameter:
    fixed, space = split([word], loader)
    assert not fixed
    assert len(space) == 1
    return space[0]


@pytest.mark.parametrize(
    ("word", "distribution"),
    [
        ("defense.q=interval(0,1)", FloatDistribution(0, 1)),
        ("defense.q=tag(log,interval(0.01,1))", FloatDistribution(0.01, 1, log=True)),
        ("defense.q=tag(log, interval(start=0.01, end=1))", FloatDistribution(0.01, 1, log=True)),
        ("budget.train.steps=int(interval(10,20))", IntDistribution(10, 20)),
        ("budget.train.steps=tag(log,int(interval(10,2000)))", IntDistribution(10, 2000, log=True)),
        ("defense.q=choice(0.1,0.3)", CategoricalDistribution(("0.1", "0.3"))),
        ("defense.q=0.1,0.3", CategoricalDistribution(("0.1", "0.3"))),
        ("defense.q=shuffle(0.1,0.3)", CategoricalDistribution(("0.1", "0.3"))),
        ("defense.q=sort(0.3,0.1)", CategoricalDistribution(("0.1", "0.3"))),
        ("defense=choice(ce,pdm)", CategoricalDistribution(("ce", "pdm"))),
        ("defense=glob(rce*)", CategoricalDistribution(("rce", "rce_margin", "rce_rvl", "rce_siamese"))),
        ("model.widths=choice([4,8],[8,8])", CategoricalDistribution(("[4,8]", "[8,8]"))),
        ("data.augment.flip=true,false", CategoricalDistribution(("True", "False"))),
        ("detector.bandwidth=loo,0.5", CategoricalDistribution(("loo", "0.5"))),
        ("budget.train.batch_size=range(16,129,16)", IntDistribution(0, 7)),
        ("defense.q=range(0.1,0.5,0.1)", IntDistribution(0, 3)),
    ],
)
def test_distributions(word: str, distribution: Any, loader: ConfigLoader) -> None:
    assert one(word, loader).distribution() == distribution


@pytest.mark.parametrize(
    ("word", "values"),
    [
        (
            "defense.q=range(0.1,0.5,0.1)",
            ["0.1", "0.2", "0.3", "0.4"],
        ),  # without its end, as in Hydra; and no 0.30000000000000004
        ("budget.train.steps=range(5,1,-2)", ["3", "5"]),
        ("budget.train.steps=range(3)", ["0", "1", "2"]),
        ("optimizer.lr=float(range(1,4))", ["1.0", "2.0", "3.0"]),
    ],
)
def test_what_a_position_in_a_range_means(word: str, values: list[str], loader: ConfigLoader) -> None:
    parameter = one(word, loader)
    assert [parameter.shown(position) for position in range(len(values))] == values


def test_numbers_are_short_and_inside(loader: ConfigLoader) -> None:
    parameter = one("defense.q=interval(0.123456789,0.987654321)", loader)
    assert parameter.shown(0.5000123) == "0.5"
    assert parameter.shown(0.123456789) == "0.1235"
    assert parameter.shown(0.987654321) == "0.987654321"  # 0.9877 would lie outside
    assert float(one("optimizer.lr=tag(log,interval(1e-6,1))", loader).shown(1.23456e-5)) == 1.235e-5
    assert (
        one("optimizer.lr=interval(1,20)", loader).shown(10.0) == "10.0"
    )  # no whole number, wherever it falls


def test_ends_are_what_is_checked_before(loader: ConfigLoader) -> None:
    assert one("defense.q=interval(0,1)", loader).ends() == ("0.0", "0.5", "1.0")
    low, middle, high = map(float, one("defense.q=tag(log,interval(0.01,1))", loader).ends())
    assert (low, high) == (0.01, 1.0)
    assert math.isclose(middle, 0.1)
    space = [one("defense=ce,rce,pdm", loader), one("defense.q=0.1,0.3", loader)]
    assert [point["defense"] for point in corners(space)] == ["ce", "rce", "pdm"]
    assert {point["defense.q"] for point in corners(space)} == {"0.1", "0.3"}
    assert size(space) == 6
    assert size([*space, one("optimizer.lr=interval(0,1)", loader)]) is None


def test_the_command_line_takes_the_place_of_an_experiment_s_axis(loader: ConfigLoader) -> None:
    params = {"defense.q": "choice(0.1,0.3)", "defense.term.rvl.weight": "interval(0,1)", "defense": "pdm"}
    fixed, space = joined(params, ["defense.q=0.5", "optimizer.lr=interval(0.001,0.1)"], loader)
    assert fixed == ["defense=pdm", "defense.q=0.5"]
    assert [p.key for p in space] == ["defense.term.rvl.weight", "optimizer.lr"]


def test_the_example_s_comments_can_be_typed(loader: ConfigLoader) -> None:
    text = (conf_dir() / "experiment" / "tune_pdm.yaml").read_text()
    commands = re.findall(r"^# pdml tune (.*?)(?:   .*)?$", text, flags=re.MULTILINE)
    spaces = [{p.key for p in tune_question.read(shlex.split(words), loader).space} for words in commands]
    weights = {"defense.term.rvl.weight", "defense.term.siamese.weight"}
    assert spaces == [weights | {"defense.q"}] * 2 + [weights | {"optimizer.lr"}, weights | {"defense.q"}]


# words beside a tiny search, and what the one line of the error has to say
WRONG = [
    ("defense=interval(0,1)", "defense=interval(0,1): defense has options and no numbers: defense=choice(ce,"),
    ("defense=choice(ce,pmd)", "defense=pmd: there is no such option: did you mean 'pdm'?"),
    ("defense.q=interval(1,0)", "defense.q=interval(1,0): the first end has to lie below the second"),
    ("defense.q=interval(0.5,0.5)", "the first end has to lie below the second"),
    ("defense.q=tag(log,interval(0,1))", "a logarithmic scale begins above 0"),
    ("defense.q=tag(lin,interval(0,1))", "the one tag is log"),
    ("defense.q=tag(log,choice(0.1,1))", "the one tag is log, and goes with an interval"),
    ("defense.q=0.1,0.1", "a value stands there twice"),
    ("defense.q=range(1,0)", "a range holds from 1 to 10,000 values"),
    ("defense.q=range(0,1,0)", "defense.q=range(0,1,0): range() arg 3 must not be zero"),
    ("defense.q=interval(0,1),0.5", "one interval(...) or range(...)"),
    ("defense.q=interval(0,2)", "defense.q=2.0: a number from 0 to 1 needed"),
    ("defense.qq=interval(0,1)", "unknown option 'defense.qq': did you mean 'defense.q'?"),
    ("defense.term.rv.weight=0.1,0.2", "did you mean 'defense.term.rvl.weight' or"),
    ("budget.train.steps=interval(1,9)", "budget.train.steps=1.0: a whole number of at least 1 needed"),
    ("optimizer.lr=interval(-1,1)", "optimizer.lr=-1.0: a number above 0 needed"),
    ("seed=0,1,2", "tune.seeds=3 averages over seeds"),
    ("attack=bim_010,cw", "what can be searched is model, defense,"),
    ("data.val_size=100,200", "data.val_size=100,200: what can be searched is"),
    ("detector.bandwidth=loo,validation", "val_dbi, val_accuracy do not depend on the detector"),
    ("tune.objective=val_acuracy", "tune.objective: 'val_acuracy' is unknown: did you mean 'val_accuracy'?"),
    ("tune.objective=accuracy", "use val_accuracy, val_dbi, val_auc, val_auc_all"),
    ("tune.record=[auc]", "tune.record: 'auc' is unknown"),
    ("tune.record=val_auc", "tune.record=val_auc: a list needed"),
    ("tune.objective=val_auc attack=none", "tune.objective=val_auc needs an attack: choose one, as attack=bim_010"),
    ("tune.record=[val_auc_all] attack=none", "tune.record=val_auc_all needs an attack"),
    ("tune.objective=val_auc attack=cw_wb", "attack=cw_wb needs the detector's scores"),
    ("tune.direction=up", "tune.direction=up: use maximize or minimize"),
    ("tune.trials=0", "tune.trials=0: a whole number of at least 1 needed"),
    ("tune.timeout=0", "tune.timeout=0: a number above 0 needed"),
    ("tune.sampler=cmaes", "tune.sampler=cmaes: use tpe, random or grid"),
    ("tune.sampler=grid", "has no last value: list some with choice(...) or range(...)"),
    ("tune.pruning=median", "it needs tune.objective=val_accuracy"),
    ("hydra/launcher=local", "hydra/launcher: pdml tune works in its own process: type the same command in several"),
    ("tune.trails=3", "unknown option 'tune.trails': did you mean 'tune.trials'?"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), WRONG, ids=[words for words, _ in WRONG])
def test_errors_in_one_line(
    words: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert TINY["search"](tmp_path, *words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("pdml: ")
    assert error.count("\n") == 1
    assert expected in error
    assert not list(tmp_path.iterdir())


def test_nothing_to_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *TINY["TINY"], f"paths.output={tmp_path}"]) == 2
    assert "pdml tune needs something to search: write a value as" in capsys.readouterr().err


def test_a_search_is_no_single_cell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without values of its own a cell would run with the defaults; the command that runs the best point gives them."""
    values = ["defense.q=0.3", "defense.term.rvl.weight=0.1", "defense.term.siamese.weight=1"]
    for command in ("run", "plan", "check", "report"):
        assert main([command, "experiment=tune_pdm", *values[:2], f"paths.output={tmp_path}"]) == 2
        assert capsys.readouterr().err == (
            "pdml: experiment=tune_pdm lists values of defense.term.siamese.weight, and one cell takes one: "
            "pdml tune experiment=tune_pdm searches; or type a value\n"
        )
    assert not list(tmp_path.iterdir())
    assert len(ask("plan", ["experiment=tune_pdm", *values])) == 1


def test_the_help_is_its_own(capsys: pytest.CaptureFixture[str], loader: ConfigLoader) -> None:
    for words in (["--help"], ["-h"], ["experiment=tune_pdm", "--help"]):
        assert main(["tune", *words]) == 0
        said = capsys.readouterr().out
        assert said.startswith("pdml tune [overrides]: ")
    for word in ("interval(", "choice(", "range(", "tag(log, interval(", *SEARCHABLE):
        assert word in said
    for key in fields(Settings):
        assert re.search(rf"(?m)^  {'record' if key.name == 'measured' else key.name}: .*# tune\.", said)
    for choices in (SAMPLERS, PRUNINGS, COLLAPSES, OBJECTIVES):
        assert all(choice in said for choice in choices)
    examples = re.findall(r"(?m)^  pdml tune (.*)$", said)
    assert len(examples) == 5
    for words in examples:
        assert tune_question.read(shlex.split(words), loader).space


def test_the_configuration_is_shown_without_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--cfg", "job", "-p", "tune", "tune.trials=7", "defense.q=interval(0,1)"]) == 0
    assert "trials: 7" in capsys.readouterr().out
