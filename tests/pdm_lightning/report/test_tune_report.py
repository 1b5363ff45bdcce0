"""The report of a search, from trials that were made up: what is best, and what is said of the others."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from pdm_lightning.report.terminal import print_table
from pdm_lightning.report.tune import (
    Number,
    Searched,
    Trial,
    TuneResult,
    tune_tables,
    write_tune_report,
)
from pdm_lightning.report.tune_tables import tune_figures

SPACE = [
    Searched("defense.term.rvl.weight", "tag(log, interval(0.01, 1))", log=True),
    Searched("defense", "choice(ce,pdm)", ("ce", "pdm")),
]


def trial(number: int, weight: str, defense: str, value: float | None, **more: object) -> Trial:
    values = (
        {} if value is None else {"val_auc": Number(value, 0.01, 90 + number, (value - 0.01, value + 0.01))}
    )
    values |= {"val_accuracy": Number(0.98, None, 257, (0.98,))} if value is not None else {}
    params = {"defense.term.rvl.weight": weight, "defense": defense}
    return Trial(number, params, values=values, command=f"pdml run defense={defense}", **more)  # type: ignore[arg-type]


def made(direction: str = "maximize") -> TuneResult:
    return TuneResult(
        name="search",
        title="A <search>",
        objective="val_auc",
        direction=direction,
        metrics=("val_auc", "val_accuracy"),
        space=SPACE,
        trials=[
            trial(0, "0.1", "pdm", 0.91, seconds=12.0, built=6, trainings=("aaaa", "bbbb")),
            trial(1, "0.5", "ce", 0.95, seconds=75.0),
            trial(2, "1.0", "pdm", None, state="diverged", reason="rvl became nan at step 3"),
            trial(3, "0.1", "pdm", 0.91, repeats=0),
            trial(4, "0.02", "pdm", 0.95),
            trial(5, "0.03", "ce", None, state="failed", reason="train: OSError: no <memory>"),
        ],
        importances={"defense.term.rvl.weight": 0.25, "defense": 0.75},
        notes=["Best: trial 1."],
        study={"key": "0123456789abcdef"},
        command="pdml tune 'a=interval(0,1)'",
        version="1.2.3",
    )


class Text(HTMLParser):
    """All text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.parts.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [str(value) for name, value in attrs if tag == "a" and name == "href"]


@pytest.mark.parametrize(("direction", "order"), [("maximize", [1, 4, 0, 3]), ("minimize", [0, 3, 1, 4])])
def test_ranks(direction: str, order: list[int]) -> None:
    """Of equals the earlier one; what has no value is not ranked, but shown below."""
    result = made(direction)
    assert [t.number for t in result.ranked] == order
    assert result.best is result.trials[order[0]]
    table = tune_tables(result)[0]
    assert [row.label for row in table.rows] == [str(number) for number in [*order, 2, 5]]
    assert ("highest" if direction == "maximize" else "lowest") in table.caption


def test_cells_of_the_trials() -> None:
    table, space = tune_tables(made())
    rows = {row.label: row.cells for row in table.rows}
    assert [column.label for column in table.columns] == [
        "Validation AUC, paired rule",
        "Validation accuracy, %",
        "defense.term.rvl.weight",
        "defense",
        "Time",
        "State",
    ]
    assert [cell.value for cell in rows["1"]] == [".950", "98.00", "0.5", "ce", "1 min 15 s", "complete"]
    assert rows["1"][0].interval == "± .010"
    assert rows["1"][0].n == "91"
    assert rows["1"][1].interval == ""
    assert [cell.value for cell in rows["2"]] == ["n/a", "n/a", "1.0", "pdm", "0 s", "diverged"]
    assert rows["3"][-1].value == "complete, as 0"
    assert table.footnotes == [
        "Trial 2 diverged: rvl became nan at step 3",
        "Trial 5 failed: train: OSError: no <memory>",
        "1 trial repeats an earlier point: its results came from the store.",
    ]
    assert [[cell.value for cell in row.cells] for row in space.rows] == [
        ["tag(log, interval(0.01, 1))", "0.5", "0.25"],
        ["choice(ce,pdm)", "ce", "0.75"],
    ]
    assert "4 complete trials" in space.caption


def test_a_long_search_is_printed_in_part() -> None:
    table = tune_tables(made(), most=2)[0]
    assert [row.label for row in table.rows] == ["1", "4"]
    assert table.footnotes[-1] == "2 of 6 trials: all are in tune.csv."
    console = Console(record=True, width=80, force_terminal=False)
    print_table(table, console)
    assert "Validation AUC, paired rule" in console.export_text()


def test_figures() -> None:
    history, slices = tune_figures(made())
    best, trials = history.panels[0]["series"]
    assert best["x"] == trials["x"] == [0, 1, 3, 4]
    assert best["y"] == [0.91, 0.95, 0.95, 0.95]
    assert trials["y"] == [0.91, 0.95, 0.91, 0.95]
    defense, weight = slices.panels  # the more important one first
    assert defense["x_names"] == ["ce", "pdm"]
    assert defense["series"][0]["x"] == [1.0, 0.0, 1.0, 1.0]
    assert weight["x_log"]
    assert weight["series"][0]["x"] == [0.1, 0.5, 0.1, 0.02]
    least = tune_figures(made("minimize"))[0].panels[0]["series"][0]["y"]
    assert least == [0.91, 0.91, 0.91, 0.91]


def test_files(tmp_path: Path) -> None:
    page = write_tune_report(tmp_path, made())
    text = Text(page.read_text())
    shown = " ".join(text.parts)
    for words in (
        "A <search>",
        "Best: trial 1.",
        "no <memory>",
        "diverged",
        "pdml tune 'a=interval(0,1)'",
        "complete",
    ):
        assert words in shown
    files = [link for link in text.links if not link.startswith("#")]
    assert all((tmp_path / link).is_file() for link in files)
    assert {
        "tune.csv",
        "figures/history.pdf",
        "figures/slices.csv",
        "tables/trials.md",
        "tables/space.tex",
    } <= set(files)
    assert (tmp_path / "figures" / "slices.png").read_bytes().startswith(b"\x89PNG")
    lines = list(csv.DictReader((tmp_path / "tune.csv").open()))
    assert [line["state"] for line in lines] == [
        "complete",
        "complete",
        "diverged",
        "complete",
        "complete",
        "failed",
    ]
    first = lines[0]
    assert (first["val_auc"], first["val_auc_sd"], first["val_auc_n"]) == ("0.91", "0.01", "90")
    assert [float(value) for value in first["val_auc_seeds"].split()] == [0.9, 0.92]
    assert (first["trainings"], first["built"], first["seconds"]) == ("aaaa bbbb", "6", "12.000")
    assert lines[2]["val_auc"] == ""
    assert lines[3]["repeats"] == "0"
    content = json.loads((tmp_path / "tune.json").read_text())
    assert content["images"] == "validation"
    assert content["best"]["number"] == 1
    assert content["best"]["values"]["val_auc"] == {"mean": 0.95, "sd": 0.01, "n": 91, "seeds": [0.94, 0.96]}
    assert content["space"]["defense"] == "choice(ce,pdm)"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_tune_report(tmp_path, made())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_without_any_value(tmp_path: Path) -> None:
    result = made()
    result.trials, result.importances = [result.trials[2]], {}
    write_tune_report(tmp_path, result)
    assert json.loads((tmp_path / "tune.json").read_text())["best"] is None
    assert not (tmp_path / "figures").exists()
    assert [row.cells[2].value for row in tune_tables(result)[1].rows] == ["n/a", "n/a"]
