"""Detectors ranked by their mean AUC."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdm_lightning.report import build_tables
from pdm_lightning.report.cells import Block, Measure
from pdm_lightning.report.detector_tables import ranks

LABELS = {
    "detector": {"kde": "KDE", "lid": "LID, fitted on FGSM-0.05", "msp": "MSP"},
    "attack": {"fgsm_005": "FGSM-0.05", "cw": "C&W", "bim": "BIM"},
    "defense": {"ce": "CE", "pdm": "PDM"},
    "data": {"digits": "Digits"},
}
FITTED = {"lid": ["fgsm_005"]}
AUCS = {
    "kde": {"fgsm_005": 0.70, "cw": 0.80, "bim": 0.60},
    "lid": {"fgsm_005": 0.99, "cw": 0.75, "bim": None},
    "msp": {"fgsm_005": 0.60, "cw": 0.95, "bim": 0.99},
}


def rows(make, aucs=AUCS, defense="ce", **more):
    return [
        make.auc(
            "digits",
            defense,
            attack,
            value,
            detector=detector,
            bandwidth="validation" if detector == "kde" else "",
            n=100 if value is not None else 12,
            status="n/a" if value is None else "ok",
            **{"ci_low": value and value - 0.02, "ci_high": value and min(1.0, value + 0.02), **more},
        )
        for detector, line in aucs.items()
        for attack, value in line.items()
    ]


def tables_of(make, rows, fitted=FITTED):
    return build_tables(make.study(rows, labels=LABELS, tables=["detectors"], fitted=fitted))


def text(row):
    return (row.label + row.marks, *(cell.value + cell.marks for cell in row.cells))


def test_ranked_by_the_mean_over_the_attacks_that_all_have_and_none_has_seen(make):
    (table,) = tables_of(make, rows(make))
    assert [c.label for c in table.columns] == [
        "Rank",
        "Mean AUC",
        "Mean AUC, all",
        "FGSM-0.05",
        "C&W",
        "BIM",
    ]
    # BIM counts for nobody, FGSM for the second mean: (.99 + .75) / 2, (.60 + .95) / 2, (.70 + .80) / 2
    assert [text(row) for row in table.rows] == [
        ("MSP", "1", ".950", ".775", ".600", ".950", ".990"),
        ("KDE", "2", ".800", ".750", ".700", ".800", ".600"),
        ("LID, fitted on FGSM-0.05*", "3", ".750", ".870", ".990*", ".750", "n/a (n=12)"),
    ]
    assert table.rows[2].cells[3].interval == "[.970, 1.000]" and table.rows[2].cells[3].n == "100"
    assert "over 1 of 3 attacks" in table.caption and "n = 12 to 100 pairs" in table.caption
    assert "none of them was fitted on; the second mean is over 2" in table.caption
    assert "paired (report.tables with differences)" in table.caption
    assert "paired: test images" in table.caption
    assert table.footnotes[0].startswith("* LID, fitted on FGSM-0.05: it has seen FGSM-0.05")


def test_the_star_goes_by_the_attack_and_not_by_the_label(make):
    (table,) = tables_of(make, rows(make), fitted={"kde": ["cw"]})
    starred = {row.label: [cell.marks for cell in row.cells] for row in table.rows}
    assert starred["KDE"][4] == "*" and not any(starred["LID, fitted on FGSM-0.05"] + starred["MSP"])
    assert table.footnotes[0] == (
        "* KDE: it has seen C&W on training images; against that attack it is no blind test."
    )


def test_an_attack_of_another_study_is_told(make):
    (table,) = tables_of(make, rows(make), fitted={"lid": []})
    assert [c.label for c in table.columns][:3] == ["Rank", "Mean AUC", "FGSM-0.05"]
    assert (
        table.footnotes[0] == "* LID, fitted on FGSM-0.05: it was fitted on an attack that is none of these."
    )


def test_where_no_attack_is_blind_all_count(make):
    one = {name: {"fgsm_005": value} for name, value in (("kde", 0.8), ("lid", 0.9))}
    (table,) = tables_of(make, rows(make, one))
    assert [text(row)[1:3] for row in table.rows] == [("1", ".900"), ("2", ".800")]
    assert [row.cells[2].marks for row in table.rows] == ["*", ""]


def mean_row(make, detector, value, metric="mean_auc"):
    more = {"ci_low": value - 0.1, "ci_high": value + 0.02, "detector": detector, "bandwidth": ""}
    return make.auc("digits", "ce", "all", value, metric=metric, **more)


def test_means_have_the_interval_that_was_measured_of_them(make):
    measured = [mean_row(make, "msp", 0.95), mean_row(make, "msp", 0.775, "mean_auc_all")]
    (table,) = tables_of(make, rows(make) + measured)
    assert [cell.interval for cell in table.rows[0].cells[1:3]] == ["[.850, .970]", "[.675, .795]"]
    # of a mean over other attacks there is no interval
    (table,) = tables_of(make, [*rows(make), mean_row(make, "msp", 0.9)])
    assert [cell.interval for cell in table.rows[0].cells[1:3]] == ["", ""]


def test_measured_means_are_no_attack_of_their_own(make):
    made = build_tables(make.study([*rows(make), mean_row(make, "msp", 0.95)], labels=LABELS))
    assert not any("all" in (row.label, row.section) for table in made for row in table.rows)
    assert not any(column.label == "all" for table in made for column in table.columns)


def test_equal_means_share_a_rank(make):
    equal = {name: {"cw": value} for name, value in (("kde", 0.8), ("lid", 0.9), ("msp", 0.8))}
    (table,) = tables_of(make, rows(make, equal))
    assert [(row.label.split(",")[0], row.cells[0].value) for row in table.rows] == [
        ("LID", "1"),
        ("KDE", "2"),
        ("MSP", "2"),
    ]


def test_a_detector_without_any_value_takes_no_attack_from_the_others(make):
    (table,) = tables_of(make, rows(make, {**AUCS, "lid": dict.fromkeys(AUCS["lid"])}))
    assert [row.label.split(",")[0] for row in table.rows] == ["MSP", "KDE", "LID"]
    assert "over 3 of 3 attacks, those for which every detector has a value." in table.caption
    assert text(table.rows[2])[1:3] == ("", "n/a")
    assert table.rows[0].cells[1].value == ".847"  # (.60 + .95 + .99) / 3


def test_means_of_several_seeds_have_their_interval(make):
    found = [
        row
        for seed, shift in enumerate((0.0, 0.02, 0.04))
        for row in rows(make, {k: {"cw": 0.5 + shift, "bim": 0.7 + shift} for k in ("kde", "msp")}, seed=seed)
    ]
    (table,) = tables_of(make, found)
    mean = table.rows[0].cells[1]
    assert (mean.value, mean.interval) == (".620", "± .020 [.570, .670]")  # .62 -+ 4.303 * .02 / sqrt(3)


def test_one_detector_is_no_ranking_and_threats_are_apart(make):
    assert tables_of(make, rows(make, {"kde": {"cw": 0.9}})) == []
    names = [t.name for t in tables_of(make, rows(make) + rows(make, threat="white_box"))]
    assert names == ["detectors-digits-ce-gray_box", "detectors-digits-ce-white_box"]


def test_over_all_defences(make):
    other = {"kde": {"cw": 0.9}, "lid": {"cw": 0.8}, "msp": {"cw": 0.7}}
    first, second, overall = tables_of(make, rows(make) + rows(make, other, "pdm"))
    assert (first.name, second.name) == ("detectors-digits-ce", "detectors-digits-pdm")
    assert [(c.group, c.label) for c in overall.columns[3:]] == [("Digits", "CE"), ("Digits", "PDM")]
    # means without FGSM .800/.900, .750/.800, .950/.700 and ranks 2/1, 3/2, 1/3
    assert [text(row) for row in overall.rows] == [
        ("KDE", "1", ".850", "1.5", ".800", ".900"),
        ("MSP", "2", ".825", "2", ".950", ".700"),
        ("LID, fitted on FGSM-0.05*", "3", ".775", "2.5", ".750", ".800"),
    ]
    assert "over 2 of 2 defences" in overall.caption and "differences)" in overall.caption


def test_a_defence_that_lacks_a_detector_is_not_in_the_overall_mean(make):
    lacking = {"kde": {"cw": 0.9}, "msp": {"cw": 0.7}}
    overall = tables_of(make, rows(make) + rows(make, lacking, "pdm"))[-1]
    assert [text(row)[1:3] for row in overall.rows] == [("1", ".950"), ("2", ".800"), ("3", ".750")]
    assert "over 1 of 2 defences" in overall.caption


@given(st.lists(st.none() | st.integers(0, 5), max_size=8))
def test_ranks_count_who_is_better(values):
    means = {Block(detector=str(k)): Measure(value=value) for k, value in enumerate(values)}
    found = ranks(means)
    known = [value for value in values if value is not None]
    assert sorted(found.values()) == sorted(1 + sum(o > v for o in known) for v in known)
    assert all(1 <= rank <= len(known) for rank in found.values())


@pytest.mark.parametrize("bandwidths", [("validation", "loo")])
def test_one_detector_at_two_bandwidths_is_told_apart(make, bandwidths):
    found = [make.auc("digits", "ce", "cw", 0.9 - k / 10, bandwidth=h) for k, h in enumerate(bandwidths)]
    (table,) = tables_of(make, found)
    assert [row.label for row in table.rows] == [f"KDE, bandwidth rule {h}" for h in bandwidths]
