"""Grids beside the grid of an experiment: what only some threat models or settings allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdm_lightning.study.ask import ask
from pdm_lightning.study.cell import Cell

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
      attack: fgsm_010
    also:
      - {threat: white_box, attack: cw_wb, detector.bandwidth_scale: '0.5,2.0'}
      - {defense: rce, attack: 'cw,jsma'}
"""


@pytest.fixture
def mine(tmp_path: Path) -> list[str]:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(EXPERIMENT)
    return ["--config-dir", str(tmp_path), "experiment=mine"]


def brief(cells: list[Cell]) -> list[tuple[str, str, str, float]]:
    return [
        (
            cell.config["threat"]["name"],
            cell.config["defense"]["name"],
            cell.config["attack"]["name"],
            cell.config["detector"]["bandwidth_scale"],
        )
        for cell in cells
    ]


GRID = [("gray_box", "ce", "fgsm_010", 1.0), ("gray_box", "pdm", "fgsm_010", 1.0)]
WHITE = [("white_box", defense, "cw_wb", scale) for defense in ("ce", "pdm") for scale in (0.5, 2.0)]
LAST = [("gray_box", "rce", attack, 1.0) for attack in ("cw", "jsma")]
_BOTH = [("gray_box", defense, attack, 1.0) for defense in ("ce", "pdm") for attack in ("fgsm_010", "cw_wb")]
_SCALED = [("gray_box", defense, "fgsm_010", scale) for defense in ("ce", "pdm") for scale in (1.0, 2.0)]
LAST_SCALED = [("gray_box", "rce", attack, scale) for attack in ("cw", "jsma") for scale in (1.0, 2.0)]


def test_cells_of_all_grids_in_their_order(mine: list[str]) -> None:
    cells = ask("plan", mine)
    assert brief(cells) == GRID + WHITE + LAST
    assert {cell.config["name"] for cell in cells} == {"mine"}


def test_what_a_grid_sets_is_in_the_names_of_its_cells(mine: list[str]) -> None:
    cells = ask("plan", mine)
    assert [cell.name("detector") for cell in cells[:3]] == ["kde", "kde", "kde[bandwidth_scale=0.5]"]
    assert len({cell.names() for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        # an axis that no further grid names: all of them take it
        ("seed=3", GRID + WHITE + LAST),
        # an axis of the first further grid alone
        ("threat=gray_box", GRID + LAST),
        ("detector.bandwidth_scale=1.0", GRID + LAST),
        # an axis of the main grid and of the last one: what is left has the values typed
        ("defense=ce", [GRID[0], *WHITE[:2]]),
        # an axis of all grids
        ("attack=fgsm_010", GRID),
        # some of a further grid's values are among those typed: these are left of it
        ("attack=fgsm_010,cw_wb", [*_BOTH, *WHITE]),
        ("detector.bandwidth_scale=1.0,2.0", [*_SCALED, *WHITE[1::2], *LAST_SCALED]),
    ],
)
def test_of_a_further_grid_the_values_are_left_that_the_command_line_names(
    word: str, expected: list[tuple[str, str, str, float]], mine: list[str]
) -> None:
    assert brief(ask("plan", [*mine, word])) == expected


def test_a_list_on_the_command_line_is_an_axis_of_every_grid_that_is_left(mine: list[str]) -> None:
    cells = ask("plan", [*mine, "seed=0,1", "attack=fgsm_010,bim_010"])
    assert [(cell.config["attack"]["name"], cell.config["seed"]) for cell in cells[:4]] == [
        ("fgsm_010", 0),
        ("fgsm_010", 1),
        ("bim_010", 0),
        ("bim_010", 1),
    ]
    assert len(cells) == 2 * 2 * 2


def test_an_experiment_without_further_grids_has_its_own_cells_alone() -> None:
    assert len(ask("plan", ["experiment=table1"])) == 4


def test_true_is_one_value_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    swept = EXPERIMENT.replace("attack: 'cw,jsma'", "defense.term.rvl.squared: 'true,false'")
    (tmp_path / "experiment" / "mine.yaml").write_text(swept)
    mine = ["--config-dir", str(tmp_path), "experiment=mine"]
    names = [cell.name("defense") for cell in ask("plan", mine)]
    assert names[-2:] == ["rce[term.rvl.squared=true]", "rce[term.rvl.squared=false]"]
    typed = [ask("plan", [*mine, f"defense.term.rvl.squared={word}"]) for word in ("true", "True")]
    assert [cell.names() for cell in typed[0]] == [cell.names() for cell in typed[1]]
    assert typed[0][-1].name("defense") == "rce[term.rvl.squared=true]"
    assert typed[0][-1].config["defense"]["term"]["rvl"]["squared"] is True
    (single,) = ask("plan", ["defense=pdm", "defense.term.rvl.squared=True"])
    assert single.name("defense") == "pdm[term.rvl.squared=true]"
