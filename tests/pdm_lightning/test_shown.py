"""Which cells stand in which tables and figures, and the experiment that holds every part of the paper."""

from __future__ import annotations

from typing import Any

import pytest

from pdm_lightning.report import Row, StudyResult, build_tables
from pdm_lightning.report.rows import cell_of
from pdm_lightning.study.ask import ask
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.plan import Entry, make_plan
from pdm_lightning.study.shown import asked, hidden, in_figure

GROUPS = ("data", "model", "defense", "budget", "threat", "attack", "detector")


def entry(attack: str, tables: list[str], figures: tuple[str, ...] = (), defense: str = "ce") -> Entry:
    names = {group: group for group in GROUPS} | {"attack": attack, "defense": defense}
    config: dict[str, Any] = {group: {"name": name, "_target_": ""} for group, name in names.items()}
    return Entry(Cell(config | {"seed": 0, "report": {"tables": tables, "figures": list(figures)}}), {})


def row(attack: str, metric: str, defense: str = "ce") -> Row:
    own = {"threat": "threat", "detector": "detector"} if attack != "none" else {}
    common = {"data": "data", "model": "model", "budget": "budget", "defense": defense}
    return Row(**common, **own, attack=attack, metric=metric, value=0.9, n=60)  # type: ignore[arg-type]


def test_what_is_asked_for_in_the_order_of_the_report() -> None:
    entries = [
        entry("a", ["joint", "summary"], ("tsne",)),
        entry("b", ["detection", "joint"], ("curves", "tsne")),
    ]
    assert asked(entries, "tables") == ["detection", "joint", "summary"]
    assert asked(entries, "figures") == ["tsne", "curves"]
    # all alike: as they ask
    assert asked(entries[:1] * 2, "tables") == ["joint", "summary"]
    # what the report does not know is told by whoever draws it
    assert asked([*entries, entry("c", ["mine"])], "tables") == ["detection", "joint", "summary", "mine"]
    assert [in_figure(one, "curves") for one in entries] == [False, True]


def test_a_cell_stands_where_it_asks_to() -> None:
    entries = [
        entry("a", ["detection"]),
        entry("b", ["joint", "summary"]),
        entry("none", ["accuracy"], (), "pdm"),
    ]
    result = StudyResult("s", "s", tables=asked(entries, "tables"), hidden=hidden(entries))
    shown = {
        table: [(r.attack, r.defense) for r in (row("a", "auc"), row("b", "auc")) if result.shows(table, r)]
        for table in ("detection", "joint", "summary")
    }
    every = [("a", "ce"), ("b", "ce")]
    assert shown == {"detection": every[:1], "joint": every[1:], "summary": every}
    # a model stands where any of its cells does
    assert result.shows("detection", row("none", "accuracy")) and result.shows(
        "joint", row("none", "accuracy")
    )
    assert not result.shows("accuracy", row("none", "accuracy"))
    assert result.shows("accuracy", row("none", "accuracy", "pdm"))
    # what is no cell's own
    assert result.shows(
        "detection", Row(attack="worst_linf_0.1", threat="worst_case", metric="auc", value=0.5)
    )


def test_the_same_cell_twice_stands_in_both() -> None:
    entries = [entry("a", ["detection"]), entry("a", ["joint"]), entry("b", ["joint"])]
    found = hidden(entries)
    assert found["joint"] == set() and found["detection"] == {cell_of(row("b", "auc"))}


def test_tables_hold_their_cells_alone() -> None:
    entries = [entry("a", ["detection"]), entry("b", ["summary"])]
    rows = [row("a", "auc"), row("b", "auc")]
    result = StudyResult("s", "s", rows=rows, tables=asked(entries, "tables"), hidden=hidden(entries))
    tables = {table.kind: table for table in build_tables(result)}
    assert [line.label for line in tables["detection"].rows] == ["a"]
    assert len(tables["summary"].rows) == 2


PARTS = {
    "accuracy": {"ce", "rce", "siamese_rvl", "pdm"},
    "detection": {"fgsm_005", "fgsm_010", "bim_005", "bim_010", "cw", "cw_hc", "jsma"},
    "white_box": {"cw_wb"},
    "black_box": {"cw_wb"},
}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    return ask("plan", ["experiment=paper", f"paths.output={tmp_path_factory.mktemp('paper')}"])


def test_the_paper_holds_every_table_and_figure(paper: list[Cell]) -> None:
    attacks: dict[str, set[str]] = {}
    for cell in paper:
        for table in cell.config["report"]["tables"]:
            attacks.setdefault(table, set()).add(cell.name("attack"))
    for table in ("detection", "white_box", "black_box"):
        assert attacks[table] >= PARTS[table], table
        assert not any("eps=" in name for name in attacks[table])
    trained = {c.name("defense") for c in paper if "accuracy" in c.config["report"]["tables"]}
    assert trained >= PARTS["accuracy"]
    drawn = {c.name("defense") for c in paper if "tsne" in c.config["report"]["figures"]}
    assert drawn == {"ce", "rce", "rvl", "siamese", "siamese_rvl", "pdm"}
    eps = {c.config["attack"]["eps"] for c in paper if "curves" in c.config["report"]["figures"]}
    assert sorted(eps) == pytest.approx([0.02 * k for k in range(11)])
    plan = make_plan(paper)
    kinds = {one.node.kind for one in plan.measured}
    assert kinds == {"bound", "rank", "layer_gradients", "walk", "bandwidths"}
    assert not [e.refused for e in plan.entries if e.refused]
    assert set(asked(plan.entries, "figures")) >= {
        "tsne",
        "confusion",
        "curves",
        "bound",
        "walk",
        "bandwidths",
    }


def test_where_results_are_shown_is_no_axis(tmp_path: Any) -> None:
    words = ["report.tables=[summary]", "card.run=none"]
    cells = ask("plan", ["experiment=paper", *words, f"paths.output={tmp_path}"])
    assert {cell.config["card"]["run"] for cell in cells} == {"none"}
    assert {tuple(cell.config["report"]["tables"]) for cell in cells} == {("summary",)}
    assert {cell.name("threat") for cell in cells} == {"gray_box", "white_box", "black_box"}
