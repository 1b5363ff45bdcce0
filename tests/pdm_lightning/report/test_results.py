from __future__ import annotations

import csv

import pytest

from pdm_lightning.report import Figure, Row, StudyResult, read_csv, rows_to_csv

COLUMNS = (
    "data,model,defense,seed,budget,threat,attack,detector,bandwidth,metric,value,ci_low,ci_high,n,n_attacked,"
    "status,artifact,note"
)


def test_csv_has_the_columns_in_order_and_blanks_for_none(tmp_path):
    row = Row(data="digits", model="m", defense="ce", seed=3, metric="accuracy", value=0.1 + 0.2)
    path = tmp_path / "results.csv"
    path.write_text(rows_to_csv([row]))
    assert path.read_text().splitlines()[0] == COLUMNS
    with path.open(newline="") as file:
        line = next(csv.DictReader(file))
    assert line["value"] == "0.30000000000000004"
    assert line["ci_low"] == line["n"] == line["note"] == ""


def test_csv_round_trip(tmp_path):
    rows = [
        Row(data="a,b", defense='q"uote', metric="auc", value=1e-17, ci_low=-0.5, n=12, bandwidth=0.26),
        Row(
            metric="auc", status="n/a", n=7, bandwidth="validation", note="capped: 1 of 2\nimages; collapsed"
        ),
    ]
    path = tmp_path / "results.csv"
    path.write_text(rows_to_csv(rows), newline="")
    assert read_csv(path) == rows


def test_csv_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("data,value\nx,1\n")
    with pytest.raises(ValueError, match="other columns"):
        read_csv(path)


def test_order_is_the_labels_order_then_first_met():
    result = StudyResult("s", "t", labels={"defense": {"pdm": "PDM", "ce": "CE"}})
    assert result.ordered("defense", ["x", "ce", "pdm", "ce", "y"]) == ["pdm", "ce", "x", "y"]
    assert result.label("defense", "x") == "x"


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: Row(status="fine"), "status 'fine'"),
        (lambda: Row(metric="auc"), "no value"),
        (lambda: Figure("a", "pie", "t"), "kind 'pie'"),
        (lambda: Figure("../a", "tsne", "t"), "cannot name a file"),
        (lambda: StudyResult("s", "t", tables=["Table 1"]), "table 'Table 1'"),
    ],
)
def test_wrong_input_is_named(wrong, words):
    with pytest.raises(ValueError, match=words) as error:
        wrong()
    assert "\n" not in str(error.value)
