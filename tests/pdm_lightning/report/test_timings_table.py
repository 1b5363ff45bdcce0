"""The table of times: what is counted once, and the rates against hand-computed values."""

from __future__ import annotations

from typing import Any

from pdm_lightning.report import Row, build_tables
from pdm_lightning.report.tables import Table

KEY = "0123456789abcdef"


def trained(make: Any, defense: str, seconds: float, seen: float, seed: int = 0) -> list[Row]:
    values = (("seconds", seconds), ("images_seen", seen))
    return [make.accuracy("mnist", defense, v, metric=m, n=None, seed=seed, artifact=KEY) for m, v in values]


def attacked(make: Any, defense: str, seconds: float | None, **more: Any) -> list[Row]:
    where = {"n": None, "n_attacked": 200, "artifact": KEY} | more
    status = {} if seconds is not None else {"status": "n/a"}
    return [
        make.auc("mnist", defense, "cw", seconds, metric="seconds", **where, **status),
        make.auc("mnist", defense, "cw", 90.0, metric="passes", **where),
    ]


def timings(make: Any, rows: list[Row]) -> list[Table]:
    return build_tables(make.study(rows, tables=["timings"]))


def lines(table: Table) -> list[list[str]]:
    return [[row.section, row.label, *(cell.value for cell in row.cells)] for row in table.rows]


def test_rates_are_images_by_seconds(make: Any) -> None:
    rows = trained(make, "ce", 20.0, 1000.0) + attacked(make, "ce", 50.0)
    (table,) = timings(make, rows)
    assert lines(table) == [
        ["Training on MNIST", "CE", "20 s", "1,000", "50.0", "", "01234567"],
        ["C&W on MNIST, gray box", "CE", "50 s", "200", "4.00", "90.0", "01234567"],
    ]
    assert table.caption.startswith("Together: training 20 s and attacks 50 s.")


def test_a_crafting_that_several_detectors_judge_is_counted_once(make: Any) -> None:
    rows = attacked(make, "ce", 50.0) + attacked(make, "ce", 50.0, detector="knn")
    # an attack that knows the detector is another crafting
    rows += attacked(make, "ce", 70.0, threat="white_box") + attacked(
        make, "ce", 80.0, threat="white_box", detector="knn"
    )
    (table,) = timings(make, rows)
    assert table.caption.startswith("Together: attacks 3 min 20 s.")
    assert [line[2] for line in lines(table)] == ["50 s", "1 min 10 s"]
    assert [line[0] for line in lines(table)] == ["C&W on MNIST, gray box", "C&W on MNIST, white box"]


def test_seeds_are_averaged(make: Any) -> None:
    rows = trained(make, "ce", 20.0, 1000.0) + trained(make, "ce", 30.0, 1000.0, seed=1)
    (table,) = timings(make, rows)
    assert lines(table)[0][2:5] == ["25 s", "1,000", "40.0"]
    assert table.caption.startswith("Together: training 50 s.")


def test_budgets_have_tables_of_their_own(make: Any) -> None:
    rows = trained(make, "ce", 20.0, 1000.0)
    other = make.accuracy("mnist", "ce", 9.0, metric="seconds", budget="lab")
    assert [table.name for table in timings(make, [*rows, other])] == ["timings-toy", "timings-lab"]


def test_without_times_there_is_no_table(make: Any) -> None:
    assert timings(make, [make.accuracy("mnist", "ce")]) == []
    assert timings(make, attacked(make, "ce", None)[:1]) == []
