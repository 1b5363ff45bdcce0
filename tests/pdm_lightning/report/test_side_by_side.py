"""The page, the CSV and the tables of two sides."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pdm_lightning.report import formats
from pdm_lightning.report.cells import aggregate
from pdm_lightning.report.contrast import Contrast
from pdm_lightning.report.matched import NAMES, Pair
from pdm_lightning.report.rows import Row
from pdm_lightning.report.side_by_side import SideBySide, notes, side_by_side_csv, write_side_by_side
from pdm_lightning.report.side_by_side_tables import alone_table, metric_tables, significant
from pdm_lightning.report.tables import Table

FIXED = {"data": "digits", "model": "resnet8", "budget": "smoke", "threat": "gray_box", "detector": "kde"}


def made(attack: str, contrast: Contrast, metric: str = "auc") -> Pair:
    names = dict.fromkeys(NAMES[:-1], "") | FIXED | {"attack": attack, "defense": "ce | pdm"}
    a, b = (
        aggregate([Row(metric=metric, value=v, ci_low=v - 0.05, ci_high=v + 0.05, n=120)]) for v in (0.9, 0.8)
    )
    return Pair(names, metric, a, b, contrast, ("a" * 16, "b" * 16))


PAIRS = [
    made("cw", Contrast("images", 0.1, 0.05, 0.15, 0.02, 100)),
    made("bim_010", Contrast("images", 0.2, 0.15, 0.25, 0.001, 110)),
    made("fgsm_010", Contrast("images", 0.01, -0.05, 0.07, 0.04, 90)),
    made(
        "jsma",
        Contrast("unpaired", 0.1, 0.03, 0.17, None, why="the artifact is not in the store, or damaged"),
    ),
    made("cw", Contrast("images", 0.1234, 0.05, 0.2, 0.03, 100), "joint_success@0.05"),
]
ALONE = [
    (
        "a",
        Row("digits", "resnet8", "ce", 0, "smoke", attack="square<b>", metric="auc", value=0.5, artifact="c"),
    ),
    ("a", Row("digits", "resnet8", "ce", 0, "smoke", attack="square<b>", metric="dbi", value=0.7)),
    (
        "b",
        Row("digits", "resnet8", "pdm", 0, "smoke", attack="cw_hc", metric="auc", value=None, status="n/a"),
    ),
]
RESULT = SideBySide(
    name="x-ce-vs-x-pdm",
    title="x: ce beside pdm",
    a="ce",
    b="pdm",
    pairs=PAIRS,
    alone=ALONE,
    compared={"defense": ("ce", "pdm")},
    command="pdml compare",
)


@pytest.fixture
def auc() -> Table:
    return metric_tables(PAIRS, "ce", "pdm")["auc"]


def test_holm_over_each_table_by_hand(auc: Table) -> None:
    """.001, .02 and .04 times 3, 2 and 1 among the AUCs; .03 is alone in its table."""
    assert [cell.cells[3].details for cell in auc.rows] == [("(.04)",), ("(.003)",), (), ()]
    assert [cell.cells[2].marks for cell in auc.rows] == ["*", "*", "*", ""]
    assert len(significant(PAIRS)) == 4
    harder = [*PAIRS[:3], made("jsma", Contrast("images", 0.1, 0.0, 0.2, 0.9, 80))]
    # 4, 3, 2 and 1 times: .004, .06, .08, .9
    assert [pair.names["attack"] for pair in significant(harder)] == ["bim_010"]


def test_what_a_row_says(auc: Table) -> None:
    assert [row.label for row in auc.rows] == ["cw", "bim_010", "fgsm_010", "jsma"]
    a, b, difference, p, how = auc.rows[0].cells
    assert (a.value, a.interval, a.n) == (".900", "[.850, .950]", "120")
    assert (b.value, difference.value, difference.interval) == (".800", "+.100", "[+.050, +.150]")
    assert (difference.n, p.value, how.value) == ("100", ".02", "by image")
    assert [cell.value for cell in auc.rows[3].cells[3:]] == ["n/a", "unpaired"]
    assert any("fooled in both" in note for note in auc.footnotes)
    assert any(note.startswith("unpaired: from the two intervals") for note in auc.footnotes)
    assert (
        "Budget smoke" not in auc.caption and "budget smoke" in auc.caption and "ce | pdm" not in auc.caption
    )
    assert auc.columns[2].scale == (-0.25, 0.25)
    # the sides' own numbers differ by .1: only another paired difference says so
    assert [row.cells[2].details for row in auc.rows] == [(), ("own: +.100",), ("own: +.100",), ()]
    assert sum(note.startswith("own: what A's") for note in auc.footnotes) == 1


def test_page_and_csv_show_the_same_ends_of_two_seeds() -> None:
    ends = ((0.90, 0.88, 0.93), (0.92, 0.89, 0.95))
    both = aggregate(
        Row(metric="auc", seed=seed, value=value, ci_low=low, ci_high=high)
        for seed, (value, low, high) in enumerate(ends)
    )
    pair = replace(PAIRS[0], a=both)
    cell = metric_tables([pair], "ce", "pdm")["auc"].rows[0].cells[0]
    line = next(csv.DictReader(io.StringIO(side_by_side_csv(replace(RESULT, pairs=[pair], alone=[])))))
    assert cell.interval == "± .014 [.880, .950]" and (line["a_low"], line["a_high"]) == ("0.88", "0.95")


def test_points_and_signs() -> None:
    table = metric_tables(PAIRS, "ce", "pdm")["joint_success@0.05"]
    cell = table.rows[0].cells[2]
    assert (cell.value, cell.interval) == ("+12.34", "[+5.00, +20.00]") and "in points" in table.caption
    assert formats.metric_difference("auc", -0.0124) == "-.012"
    assert formats.metric_difference("dbi", 0.285) == "+0.285"
    assert formats.metric_difference("bound_rank", -0.25) == "-.250"
    assert formats.metric_difference("seconds", -75.0) == "-1 min 15 s"
    assert (
        formats.metric_difference("collapsed", 1.0) == "+1.00"
        and formats.metric_difference("auc", 0.0) == ".000"
    )


def test_a_metric_without_a_value_anywhere_is_named_and_has_no_table() -> None:
    nothing = made("cw", Contrast("unpaired"), "fpr95")
    told = replace(RESULT, pairs=[*PAIRS, nothing])
    assert list(told.tables) == ["auc", "joint_success@0.05"]
    assert any(formats.metric_label("fpr95") in note for note in notes(told))


def test_seeds_stand_for_images() -> None:
    pair = replace(PAIRS[0], contrast=Contrast("seeds", 0.1, 0.02, 0.18, 0.03, 3))
    table = metric_tables([pair], "a", "b")["auc"]
    cell = table.rows[0].cells[2]
    assert (cell.n, cell.details) == ("", ("3 seeds",))
    (told,) = [note for note in table.footnotes if note.startswith("by seed: Student's t")]
    assert (
        "none with two" in told and "each over images that both attacked and that are fooled in both" in told
    )
    plain = replace(pair, contrast=replace(pair.contrast, why="there is no store"))
    assert "each over" not in " ".join(metric_tables([plain], "a", "b")["auc"].footnotes)


def test_what_has_no_partner_is_counted_and_listed() -> None:
    (table,) = alone_table(ALONE, "ce", "pdm")
    assert [(row.label, [cell.value for cell in row.cells]) for row in table.rows] == [
        ("ce, square<b>", ["ce", "2", "auc, dbi"]),
        ("pdm, cw_hc", ["pdm", "1", "auc"]),
    ]
    assert any("2 only in ce and 1 only in pdm" in note for note in notes(RESULT))
    assert alone_table([], "ce", "pdm") == []


def test_several_differences_are_warned_of() -> None:
    told = notes(replace(RESULT, compared={"budget": ("smoke", "cpu"), "model": ("a", "b")}))
    assert "Compared: budget smoke (A) with cpu (B)." in told and any(
        "More than one thing" in one for one in told
    )


def test_the_csv_keeps_every_digit_and_every_row() -> None:
    lines = list(csv.DictReader(io.StringIO(side_by_side_csv(RESULT))))
    assert [line["cell"] for line in lines] == ["both"] * 5 + ["only a", "only a", "only b"]
    first = lines[0]
    assert (first["a"], first["b"], first["difference"], first["p"]) == ("0.9", "0.8", "0.1", "0.02")
    assert (
        float(first["p_corrected"]) == 0.04
        and first["paired"] == "images"
        and first["a_artifact"] == "a" * 16
    )
    assert (lines[3]["p"], lines[3]["why"]) == ("", "the artifact is not in the store, or damaged")
    assert (lines[5]["a"], lines[5]["b"], lines[5]["attack"]) == ("0.5", "", "square<b>")
    assert (lines[7]["b_status"], lines[7]["a"], lines[7]["b"]) == ("n/a", "", "")


def test_the_page_asks_for_nothing_and_escapes_names(tmp_path: Path) -> None:
    page = write_side_by_side(tmp_path / "x", RESULT)
    text = page.read_text()
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//|@import|url\(\s*[\"']?http", text)
    assert "default-src 'none'" in text and re.search(r'class="[^"]*sortable', text) and "light-dark(" in text
    assert "square<b>" not in text and "square&lt;b&gt;" in text
    linked = set(re.findall(r'href="([^"#]+)"', text))
    assert linked == {"compare.csv"} | {
        f"tables/{path.name}" for path in (tmp_path / "x" / "tables").iterdir()
    }
    assert all((tmp_path / "x" / name).is_file() for name in linked)


def test_written_again_the_files_are_the_same_and_old_tables_go(tmp_path: Path) -> None:
    write_side_by_side(tmp_path, RESULT)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_side_by_side(tmp_path, RESULT)
    assert before == {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_side_by_side(tmp_path, replace(RESULT, pairs=PAIRS[:1], alone=[]))
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"auc.md", "auc.tex"}
