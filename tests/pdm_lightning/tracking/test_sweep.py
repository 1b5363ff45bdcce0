"""Sweeps for W&B's agents: W&B takes them, and its agents' commands are the study's cells, each once."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from pdm_lightning.cli import main
from pdm_lightning.study.ask import ask
from pdm_lightning.study.cell import Cell
from pdm_lightning.tracking.sweep import grids, sweep_config

SCHEMA = json.loads(Path(__file__).with_name("sweep_schema.json").read_text())
EXPERIMENT = """\
# @package _global_
defaults:
  - override /data: digits
name: mine
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      defense: ce,pdm
      attack: selective_pgd,joint_pgd
      threat: white_box
    also:
      - {attack: selective_pgd, attack.eps: '0.025,1.0'}
      - {threat: black_box, attack: selective_pgd, model@threat.proxy.model: 'resnet8,resnet14'}
"""


def checked(config: dict[str, Any]) -> None:
    """As W&B's server checks a sweep (its package ``sweeps``)."""
    errors = list(jsonschema.Draft7Validator(SCHEMA).iter_errors(config))
    assert not errors, errors


def agents_words(config: dict[str, Any]) -> list[list[str]]:
    """What W&B's agents type for each point of the grid, by W&B's own functions."""
    parameters = {key: held["values"] for key, held in config["parameters"].items()}
    typed = []
    for point in itertools.product(*parameters.values()):
        # the values come from W&B's server, through JSON
        values = json.loads(json.dumps(dict(zip(parameters, point, strict=True))))
        made = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
        made |= {"program": [config["program"]], "env": ["/usr/bin/env"]}
        command = [
            part
            for word in create_sweep_command(list(config["command"]))
            for part in (made[word[2:-1]] if word.startswith("${") else [word])
        ]
        assert command[:3] == ["/usr/bin/env", "pdml", "run"]
        typed.append(command[3:])
    return typed


def meaning(cell: Cell) -> tuple[Any, ...]:
    """A cell's names in tables and its whole configuration, but for the logger that its agent has to have."""
    config = {key: value for key, value in cell.config.items() if key not in ("logger", "hydra")}
    return cell.names(), json.dumps(config, sort_keys=True)


def written(words: list[str], output: Path) -> list[dict[str, Any]]:
    assert main(["wandb", "sweep", *words, f"paths.output={output}"]) == 0
    return [yaml.safe_load(path.read_text()) for path in sorted((output / "sweeps").glob("*.yaml"))]


def same_cells(words: list[str], output: Path) -> list[dict[str, Any]]:
    """Agents are given the study's cells, each once; composed, a command is the very cell."""
    configs = written(words, output)
    cells = {
        frozenset(word for word in cell.overrides if not word.startswith("logger=")): cell
        for cell in ask("run", [*words, f"paths.output={output}"])
    }
    given = []
    for config in configs:
        checked(config)
        commands = agents_words(config)
        given += [frozenset(cells_words(command)) for command in commands]
        # composing each of them would take minutes
        for command in {0: commands[0], 1: commands[-1]}.values():
            (composed,) = ask("run", command)
            assert meaning(composed) == meaning(cells[frozenset(cells_words(command))])
            assert composed.config["logger"]["name"] == "wandb"
    assert len(given) == len(cells) and set(given) == set(cells)
    return configs


def cells_words(command: list[str]) -> list[str]:
    """A command without what every agent's has beside a cell's overrides."""
    beside = ("--config-dir", "/", "++hydra.", "logger=")
    return [word for word in command if not word.startswith(beside)]


def test_an_experiment_is_one_sweep(tmp_path: Path) -> None:
    words = [
        "experiment=table2",
        "defense=ce,pdm",
        "attack=fgsm_010,cw",
        "budget=smoke",
        "logger.project=mine",
    ]
    (config,) = same_cells(words, tmp_path)
    assert config["method"] == "grid" and config["project"] == "mine" and config["name"] == "table2"
    assert config["parameters"] == {
        "defense": {"values": ["ce", "pdm"]},
        "attack": {"values": ["fgsm_010", "cw"]},
    }
    for wrong in ({"command": "pdml run"}, {"parameters": {}}, {"parameters": {"a@b": {"values": [1]}}}):
        with pytest.raises(AssertionError):
            checked(config | wrong)


def test_further_grids_are_further_sweeps(tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(EXPERIMENT)
    configs = same_cells(["--config-dir", str(tmp_path / "conf"), "experiment=mine"], tmp_path)
    # W&B takes no '@' in a parameter's name: a sweep for each of the proxies
    assert [config["name"] for config in configs] == [f"mine-{n}" for n in range(1, 5)]


def test_a_sweep_of_the_command_line(tmp_path: Path) -> None:
    (config,) = same_cells(["-m", "defense=ce,pdm", "seed=0,1", "logger=csv", "logger.tags=[a,b]"], tmp_path)
    # a number of the configuration is one at W&B, too
    assert config["parameters"]["seed"] == {"values": [0, 1]}


def test_cells_that_no_agent_could_run_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["-m", "threat=gray_box,white_box", "data=digits", "budget=smoke"]
    # what bim_010 needs, both threat models give: one result, two names
    configs = written([*grid, "attack=bim_010,joint_pgd,none", "defense=ce,pdm"], tmp_path)
    told = capsys.readouterr().out
    given = [frozenset(cells_words(command)) for config in configs for command in agents_words(config)]
    assert {
        frozenset(w for w in words if w.startswith(("threat", "attack", "defense"))) for words in given
    } == {
        frozenset({f"threat={threat}", f"attack={attack}", f"defense={defense}"})
        for threat, attack in (("gray_box", "bim_010"), ("white_box", "joint_pgd"))
        for defense in ("ce", "pdm")
    }
    reasons = "2 refused by their threat model, 4 without an attack, 2 the same as another"
    assert told.startswith(f"left out: 8 of 12 cells ({reasons})\n")
    assert main(["wandb", "sweep", *grid, "attack=none", f"paths.output={tmp_path}"]) == 2
    assert "no cell is left for a sweep" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["sweep", "--help"], ["dashboard", "-h"]])
def test_help_is_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wandb", *words]) == 0
    told = capsys.readouterr().out
    assert told.startswith("pdml wandb sweep [overrides]") and "Examples" in told and "run|plan" not in told


def test_one_cell_is_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wandb", "sweep", "defense=ce", f"paths.output={tmp_path}"]) == 2
    assert "one cell is no sweep" in capsys.readouterr().err
    assert main(["wandb", "swep"]) == 2
    assert "did you mean 'sweep'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "word", ["1.0", "1e-5", "0.1", "7", "-3", "007", "true", "null", "nan", "1e400", "[1,2]", "0.30"]
)
def test_words_come_back_as_they_were(word: str) -> None:
    config = sweep_config({"attack.eps": [word, "other"]}, [], name="x", project="p")
    (first, _) = agents_words(config)
    assert first == [f"attack.eps={word}"]


POINTS = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from("12"))


@settings(max_examples=60, deadline=None)
@given(st.lists(POINTS, min_size=1, max_size=18))
def test_grids_hold_exactly_the_cells(points: list[tuple[str, str, str]]) -> None:
    keys = ("defense", "attack", "+model@a.b")
    found = grids([f"{key}={value}" for key, value in zip(keys, point, strict=True)] for point in points)
    held = [point for grid in found for point in itertools.product(*(grid[key] for key in keys))]
    assert sorted(held) == sorted(set(points))
    assert all(len(grid["+model@a.b"]) == 1 for grid in found)


def test_a_full_grid_is_not_split() -> None:
    cells = [(f"defense={d}", f"attack={a}", "seed=0") for d in ("ce", "rce", "pdm") for a in ("cw", "jsma")]
    assert grids(cells) == [{"defense": ["ce", "rce", "pdm"], "attack": ["cw", "jsma"], "seed": ["0"]}]


def test_the_grid_search_of_wandb_agrees() -> None:
    search = pytest.importorskip("sweeps", reason="W&B's own search is not installed")
    grid = {"defense": ["ce", "pdm"], "attack.eps": ["0.025", "1.0"], "seed": ["0"]}
    config = sweep_config(grid, ["logger=wandb"], name="x", project="p")
    found, runs = [], []
    while (run := search.next_run(config, runs)) is not None:
        run.state = search.RunState.finished
        runs.append(run)
        found.append({key: held["value"] for key, held in run.config.items()})
    assert found == [
        {"defense": d, "attack.eps": eps} for eps in (0.025, "1.0") for d in ("ce", "pdm")
    ] and not search.schema_violations_from_proposed_config(config)
