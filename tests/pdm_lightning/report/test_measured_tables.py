"""The tables of gradients and of the bound."""

from __future__ import annotations

from pdm_lightning.report import Row, StudyResult, build_tables

MODEL = {"data": "digits", "model": "resnet8", "budget": "smoke"}


def row(defense: str, metric: str, value: float | None, **more: object) -> Row:
    limits = {} if value is None else {"ci_low": value * 0.9, "ci_high": value * 1.1}
    status = "n/a" if value is None else "ok"
    return Row(**MODEL, defense=defense, metric=metric, value=value, n=60, status=status, **limits, **more)  # type: ignore[arg-type]


def test_gradients_beside_the_first_defence() -> None:
    rows = [row("ce", "accuracy", 0.9), row("ce", "gradient_attack:input", 2.0)]
    rows += [row("rce", "gradient_attack:input", 0.5), row("pdm", "gradient_attack:input", 6.0)]
    rows += [row("ce", "gradient_train:stage1", 1.0), row("pdm", "gradient_train:stage1", None)]
    (table,) = build_tables(StudyResult("s", "s", rows=rows, tables=["gradients"]))
    assert [column.label for column in table.columns] == ["ce", "rce", "pdm"]
    attack, train = table.rows
    assert [line.label for line in table.rows] == ["input", "stage1"] and attack.section != train.section
    assert [cell.details for cell in attack.cells] == [
        (),
        ("4.00 times smaller than ce",),
        ("3.00 times larger than ce",),
    ]
    assert [cell.status for cell in train.cells] == ["ok", "missing", "n/a"]
    assert attack.cells[1].interval == "[0.450, 0.550]" and attack.cells[1].n == "60"


def test_no_gradients_no_table() -> None:
    rows = [row("ce", "accuracy", 0.9)]
    assert build_tables(StudyResult("s", "s", rows=rows, tables=["gradients", "bound"])) == []


def test_the_bound_with_and_without_an_attack() -> None:
    model = [row("ce", "eta", 2.0), row("ce", "bound", 0.12), row("ce", "jacobian_norm", 16.0)]
    (alone,) = build_tables(StudyResult("s", "s", rows=model, tables=["bound"]))
    assert [column.label for column in alone.columns] == ["eta", "eta, 1 % quantile", "||J||", "eta / ||J||"]
    assert [cell.status for cell in alone.rows[0].cells] == ["ok", "missing", "ok", "ok"]
    own = {"attack": "min_norm_l2", "threat": "gray_box"}
    scored = own | {"detector": "kde", "bandwidth": "validation", "note": "capped: 60 of 540 test images"}
    attacked = [row("ce", "l2_mean", 0.4, **scored), row("ce", "auc", 0.99, **scored)]
    attacked += [row("ce", "bound_rank", -0.2, **own), row("ce", "below_bound", 0.05, **own)]
    (table,) = build_tables(StudyResult("s", "s", rows=[*model, *attacked], tables=["bound"]))
    assert {column.group for column in table.columns} == {"Model", "min_norm_l2†"}
    assert [cell.value for cell in table.rows[0].cells[-3:]] == ["0.400", "-.200", "5.00"]
    assert table.footnotes[-2:] == [
        "† min_norm_l2 was capped: 60 of 540 test images.",
        "missing: not computed in this study.",
    ]
