"""Differences from a reference, with p-values corrected for their number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from pdm_lightning.report import build_tables, formats
from pdm_lightning.report.difference_tables import holm, t_test


def pair(make, defense, attack, value, p, reference="ce", kind="", at="", **more):
    """A difference and its p-value."""
    metric = f"{kind or 'auc'}_minus:{reference}{at}"
    place = {"n": 100, "note": f"p={p}", **more}
    limits = {"ci_low": value - 0.05, "ci_high": value + 0.05}
    prefix = f"p_{kind}_minus" if kind else "p_minus"
    return [
        make.auc("digits", defense, attack, value, metric=metric, **limits, **place),
        make.auc("digits", defense, attack, p, metric=f"{prefix}:{reference}{at}", **place),
    ]


def base(make, *detectors):
    return [make.auc("digits", "ce", "cw", detector=name) for name in detectors or ("kde",)]


def tables_of(make, rows):
    return build_tables(make.study(rows, tables=["differences"]))


def test_defences_minus_the_reference_with_corrected_p(make):
    found = [
        *base(make),
        *pair(make, "rce", "fgsm_005", 0.012, 0.03),
        *pair(make, "pdm", "fgsm_005", -0.1, 0.001),
        *pair(make, "pdm", "cw", 0.25, 0.02),
    ]
    found += [make.auc("digits", "rce", "cw", None, metric="auc_minus:ce", status="n/a", n=12)]
    (table,) = tables_of(make, found)
    assert (table.name, table.title) == ("difference_auc_defense", "Defences compared: AUC")
    assert [(c.group, c.label) for c in table.columns] == [("Digits", "RCE - CE"), ("Digits", "PDM - CE")]
    assert [row.label for row in table.rows] == ["FGSM-0.05", "C&W"]
    (first, second), (third, fourth) = (row.cells for row in table.rows)
    assert (first.value, first.interval, first.n) == ("+.012", "[-.038, +.062]", "100")
    # three p-values: .001 * 3, .02 * 2, and .03 * 1 raised to the one before it
    assert [c.details for c in (first, second, fourth)] == [
        ("p .03, corrected .04",),
        ("p .001, corrected .003",),
        ("p .02, corrected .04",),
    ]
    assert (second.value, [c.marks for c in (first, second, fourth)]) == ("-.100", ["*", "*", "*"])
    assert third.value == "n/a (n=12)" and not third.marks
    assert any("Holm" in note and "(3 of them)" in note for note in table.footnotes)
    assert "fooled in both" in table.caption and "bootstrap p-value" in table.caption


def test_what_holm_takes_away_is_not_marked(make):
    rows = [*base(make)]
    for attack, p in (("fgsm_005", 0.03), ("cw", 0.04)):
        rows += pair(make, "pdm", attack, 0.1, p)
    (table,) = tables_of(make, rows)
    assert [row.cells[0].marks for row in table.rows] == ["", ""]
    assert [row.cells[0].details[0] for row in table.rows] == [
        "p .03, corrected .06",
        "p .04, corrected .06",
    ]


def test_detectors_have_a_table_of_their_own(make):
    rows = [*base(make, "kde", "msp"), *pair(make, "pdm", "cw", 0.1, 0.2)]
    rows += pair(make, "ce", "cw", 0.05, 0.5, "kde", detector="msp", bandwidth="")
    defences, detectors = tables_of(make, rows)
    assert (defences.name, detectors.name) == ("difference_auc_defense", "difference_auc_detector")
    assert [(c.group, c.label) for c in detectors.columns] == [("Digits, CE", "msp - KDE")]
    assert detectors.rows[0].cells[0].value == "+.050"


def test_joint_success_in_points_at_its_rate(make):
    rows = [*base(make), *pair(make, "pdm", "cw", -0.125, 0.004, kind="joint_success", at="@0.05")]
    (table,) = tables_of(make, rows)
    assert table.title == "Defences compared: joint success at 5 % false positives"
    cell = table.rows[0].cells[0]
    assert (cell.value, cell.interval) == ("-12.50", "[-17.50, -7.50]")
    assert cell.details == ("p .004, corrected .004",) and cell.marks == "*"
    assert "McNemar" in table.caption


def test_several_seeds_are_tested_over_their_differences(make):
    values = (0.10, 0.12, 0.17)
    rows = [*base(make)]
    for seed, value in enumerate(values):
        rows += pair(make, "pdm", "cw", value, 0.5, seed=seed)
    (table,) = tables_of(make, rows)
    p = ttest_1samp(values, 0).pvalue
    assert table.rows[0].cells[0].details == (
        "3 seeds",
        f"p {formats.p_value(p)}, corrected {formats.p_value(p)}",
    )
    assert "Student's t test over their differences" in table.caption
    summary = build_tables(make.study(rows, tables=["summary"]))
    labels = [row.label for table in summary for row in table.rows]
    assert "AUC, paired rule, minus that of ce" in labels
    assert not [label for label in labels if label.startswith("p-value")]


@pytest.mark.parametrize("values", [(0.1, 0.1, 0.1), (0.0, 0.0, 0.0), (0.1, 0.12)])
def test_seeds_that_agree_or_are_two_have_no_p_value(make, values):
    rows = [
        row for seed, value in enumerate(values) for row in pair(make, "pdm", "cw", value, 0.5, seed=seed)
    ]
    (table,) = tables_of(make, [*base(make), *rows])
    (cell,) = table.rows[0].cells
    assert cell.details == (f"{len(values)} seeds", "p n/a") and not cell.marks
    assert "(0 of them)" in table.footnotes[0] and "all seeds differ by the same amount" in table.caption


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=6))
def test_the_t_test_is_scipy_s(values):
    mean = sum(values) / len(values)
    sd = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    if sd > 1e-6:
        assert t_test(mean, sd, len(values)) == pytest.approx(ttest_1samp(values, 0).pvalue, rel=1e-6)
    assert t_test(0.0, 0.0, 3) is t_test(0.1, 0.0, 3) is t_test(0.1, 0.1, 2) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(values):
    corrected = holm(values)
    for p, found in zip(values, corrected, strict=True):
        assert p <= found <= 1
    pairs = sorted(zip(values, corrected, strict=True))
    assert [found for _, found in pairs] == sorted(corrected)
    # who rejects at a level: the largest k with every smaller p below level / (m - k + 1)
    m, rejected = len(values), 0
    for k, p in enumerate(sorted(values)):
        if p * (m - k) >= 0.05:
            break
        rejected += 1
    assert sum(found < 0.05 for found in corrected) == rejected


@pytest.mark.parametrize(
    "metric, taken",
    [
        ("auc_minus:ce", ("auc_minus", "ce", None)),
        ("auc_minus:kde[x=1:2]", ("auc_minus", "kde[x=1:2]", None)),
        ("joint_success_minus:ce@0.05", ("joint_success_minus", "ce", 0.05)),
        ("p_joint_success_minus:ce@0.01", ("p_joint_success_minus", "ce", 0.01)),
        ("auc", None),
        ("auc_minus", None),
    ],
)
def test_names_of_differences(metric, taken):
    assert formats.difference_of(metric) == taken


def test_differences_have_a_sign_and_their_deviations_none():
    assert formats.metric_value("auc_minus:ce", 0.0124) == "+.012"
    assert formats.metric_value("auc_minus:ce", -1.0) == "-1.000"
    assert formats.metric_value("auc_minus:ce", 0.0) == "+.000"
    assert formats.metric_deviation("auc_minus:ce", 0.0124) == ".012"
    assert formats.metric_deviation("joint_success_minus:ce@0.05", 0.0124) == "1.24"
    assert formats.metric_label("joint_success_minus:ce@0.05").endswith(
        "minus that of ce at 5 % false positives"
    )
    assert [formats.p_value(p) for p in (1.0, 0.5, 0.0123, 1e-9)] == ["1.00", ".50", ".012", "<.0001"]


@pytest.mark.parametrize(
    "metric, value, shown",
    [
        ("auc", 1.2, 1.0),
        ("auc", -0.1, 0.0),
        ("joint_accuracy@0.05", 1.2, 1.0),
        ("distortion", -0.1, 0.0),
        ("distortion", 1.2, 1.2),
        ("auc_minus:ce", -0.3, -0.3),
        ("unknown", -2.0, -2.0),
    ],
)
def test_intervals_end_where_the_metric_does(metric, value, shown):
    assert formats.within(metric, value) == shown
