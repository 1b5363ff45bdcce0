"""Table 4, and classifier and detector judged together: joint success and robust accuracy with rejection."""

from __future__ import annotations

from pdm_lightning.report import build_tables
from pdm_lightning.report.render_text import markdown

WHITE = {"threat": "white_box"}


def joint(make, value, metric="joint_success@0.05", *, defense="ce", attack="cw", **more):
    status = {} if value is not None else {"status": "n/a"}
    return make.auc("mnist", defense, attack, value, metric=metric, **status, **more)


def transferred(make, defense, threat="black_box", **more):
    values = {
        "auc_proxy": 0.6,
        "auc": 0.8,
        "auc_transferred": 0.9,
        "transfer_rate": 0.25,
        "proxy_success_rate": 0.99,
    }
    names = {"threat": threat, **more}
    return [
        make.auc("mnist", defense, "cw_wb", value, metric=metric, **names) for metric, value in values.items()
    ]


def test_black_box_shows_both_readings_of_the_auc_and_the_paper(make):
    agreement = make.accuracy("mnist", "pdm", 0.97, metric="proxy_agreement", threat="black_box")
    rows = transferred(make, "pdm") + transferred(make, "ce", "transfer") + [agreement]
    black, transfer = make.tables(rows)
    assert black.name == "black_box-black_box" and transfer.name == "black_box-transfer"
    assert [cell.value for cell in black.rows[0].cells] == [".600", ".900", "25.00", "99.00", "97.00"]
    assert [cell.paper for cell in black.rows[0].cells] == ["", ".99", "", "", ""]
    assert "Agreement" in black.caption
    assert [cell.value for cell in transfer.rows[0].cells] == [".600", ".900", "25.00", "99.00"]
    assert not any(cell.paper for cell in transfer.rows[0].cells) and "Agreement" not in transfer.caption


def test_a_failed_gray_box_attack_is_no_black_box_row(make):
    rows = [make.auc("mnist", "ce", "cw", None, status="failed"), *transferred(make, "ce")]
    assert [[row.section for row in table.rows] for table in make.tables(rows)] == [["cw_wb on MNIST"]]


def test_joint_has_a_table_for_each_rate_and_kind_the_larger_rate_first(make):
    rows = [
        joint(make, 0.3, f"{name}@{fpr}")
        for fpr in ("0.01", "0.05")
        for name in ("robust_accuracy", "joint_success")
    ]
    assert [table.title for table in make.tables(rows)] == [
        "Joint success at 5 % false positives",
        "Joint success at 1 % false positives",
        "Robust accuracy with rejection at 5 % false positives",
        "Robust accuracy with rejection at 1 % false positives",
    ]


def test_threats_are_sections_and_the_worst_case_comes_last(make):
    rows = [
        joint(make, 0.9, attack="worst_linf_0.1", threat="worst_case"),
        joint(make, 0.8, attack="joint_pgd", **WHITE),
        joint(make, 0.1, defense="pdm"),
        joint(make, 0.2),
    ]
    (table,) = make.tables(rows)
    assert [(row.section, row.label) for row in table.rows] == [
        ("Gray box", "C&W"),
        ("White box", "joint_pgd"),
        ("Worst case over all attacks", "worst_linf_0.1"),
    ]
    assert [(c.group, c.label) for c in table.columns] == [("MNIST", "CE"), ("MNIST", "PDM")]
    assert [cell.value for cell in table.rows[0].cells] == ["20.00", "10.00"]
    assert [cell.value for cell in table.rows[2].cells] == ["90.00", "missing"]
    assert "the attack that does it the most harm" in table.caption


def test_one_threat_needs_no_section(make):
    (table,) = make.tables([joint(make, 0.2)])
    assert table.rows[0].section == "" and "threat model gray box" in table.caption
    assert "the most harm" not in table.caption


def test_a_joint_cell_says_how_it_came_about(make):
    rows = [
        joint(make, 0.1),
        joint(make, 0.8, "misclassified_rate"),
        joint(make, 0.875, "detected@0.05"),
        joint(make, 0.5, "detected@0.01"),
        joint(make, 0.9, "robust_accuracy@0.05"),
    ]
    success, robust = make.tables(rows)
    assert success.rows[0].cells[0].details == ("fooled 80 %, of these 88 % flagged",)
    assert robust.rows[0].cells[0].details == ()


def test_a_rate_without_any_value_is_a_footnote_not_a_table(make):
    rows = [joint(make, 0.1), joint(make, None, "joint_success@0.01")]
    (table,) = make.tables(rows)
    note = "A threshold at 1 % false positives needs 1,000 clean validation images; with fewer, no cell has a value."
    assert table.footnotes == [note]


def test_where_no_rate_has_a_value_the_tables_say_so(make):
    rows = [joint(make, None, f"joint_success@{fpr}", n=60) for fpr in ("0.01", "0.05")]
    five, one = make.tables(rows)
    assert five.rows[0].cells[0].value == one.rows[0].cells[0].value == "n/a (n=60)"
    assert "needs 200 clean validation images; with fewer, a cell is n/a." in five.footnotes[0]
    assert "needs 1,000 clean validation images; with fewer, a cell is n/a." in one.footnotes[0]


def test_a_refused_attack_is_a_dash_in_its_threat(make):
    refused = make.auc("mnist", "ce", "joint_pgd", None, status="refused")
    rows = [refused, joint(make, 0.5, attack="joint_pgd", **WHITE)]
    (table,) = make.tables(rows)
    assert [(row.section, row.cells[0].value) for row in table.rows] == [
        ("Gray box", "\u2013"),
        ("White box", "50.00"),
    ]


def test_a_bandwidth_sweep_makes_no_joint_tables_of_its_own(make):
    rows = [joint(make, 0.5, bandwidth=h, **WHITE) for h in ("validation", "validation x2")]
    assert [table.name for table in make.tables(rows)] == ["joint_success-0-05"]
    assert [table.name for table in make.tables(rows[1:])] == ["joint_success-0-05"]


def test_the_worst_case_is_in_no_detection_or_ablation_table(make):
    worst = {"threat": "worst_case", "attack": "worst_l2_2"}
    rows = [
        make.accuracy("mnist", "ce"),
        joint(make, 0.9, **worst),
        make.auc("mnist", "ce", "worst_l2_2", None, status="failed", threat="worst_case", bandwidth="loo"),
        make.auc("mnist", "ce", "cw"),
    ]
    result = make.study(rows, tables=["detection", "ablation", "summary"])
    assert [table.name for table in build_tables(result) if table.kind != "summary"] == [
        "detection",
        "ablation-mnist",
    ]
    assert any("90.00" in markdown(table) for table in build_tables(result) if table.kind == "summary")
