"""Table 3: distortion in the white box, its bandwidth sweep, and distortion at equal AUC."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pdm_lightning.report import build_tables, print_tables
from pdm_lightning.report.render_text import latex, markdown
from pdm_lightning.report.sweep_tables import at_level


def white(
    make, defense, mean, *, success=1.0, auc=0.5, data="mnist", attack="cw_wb", bandwidth="validation", **more
):
    """The rows of one white-box attack."""
    scaled = isinstance(bandwidth, str) and " x" in bandwidth
    detector = f"kde[bandwidth_scale={bandwidth.partition(' x')[2]}]" if scaled else "kde"
    common = {"threat": "white_box", "bandwidth": bandwidth, "detector": detector, **more}
    values = {
        "distortion_q25": 0.8 * mean,
        "distortion_median": 0.9 * mean,
        "distortion_q75": 1.2 * mean,
        "l2_median": 25.2 * mean,
        "success_rate": success,
        "auc": auc,
    }
    first = make.auc(
        data, defense, attack, mean, metric="distortion", ci_low=mean - 0.01, ci_high=mean + 0.01, **common
    )
    return [
        first,
        *(make.auc(data, defense, attack, value, metric=name, **common) for name, value in values.items()),
    ]


def test_a_study_without_the_new_rows_has_none_of_the_new_tables(make):
    assert make.tables(make.full_study().rows) == []


def test_white_box_shows_distortion_quartiles_success_and_auc(make):
    rows = white(make, "pdm", 0.16, success=0.995, auc=0.43) + white(make, "ce", 0.08)
    (table,) = make.tables(rows)
    assert table.name == "white_box" and [c.label for c in table.columns] == [
        "Mean distortion",
        "Median [quartiles]",
        "Success, %",
        "AUC",
    ]
    assert [(row.section, row.label) for row in table.rows] == [
        ("cw_wb on MNIST", "CE"),
        ("cw_wb on MNIST", "PDM"),
    ]
    mean, median, success, auc = table.rows[1].cells
    assert (mean.value, mean.interval, mean.n, mean.paper) == (".160", "[.150, .170]", "100", ".162")
    assert (median.value, median.interval, median.details) == (".144 [.128, .192]", "", ("median L2 4.03",))
    assert (success.value, auc.value) == ("99.50", ".430")
    assert not mean.warning and not any("CENSORED" in note for note in table.footnotes)
    for words in (
        "Budget toy",
        "threat model white box",
        "detector KDE, bandwidth rule validation",
        "n = 100 succ",
    ):
        assert words in table.caption


@pytest.mark.parametrize(
    "success, warning", [(0.99, ""), (0.9899, "CENSORED: success 98.99 %"), (0.0, "CENSORED: success 0.00 %")]
)
def test_below_99_percent_success_the_cell_says_censored(make, success, warning):
    (table,) = make.tables(white(make, "ce", 0.08, success=success))
    assert table.rows[0].cells[0].warning == warning
    assert any(note.startswith("CENSORED") for note in table.footnotes) == bool(warning)


def test_an_attack_without_a_success_is_censored_too(make):
    none = {"value": None, "status": "n/a", "n": 0, "threat": "white_box"}
    rows = [
        make.auc("mnist", "ce", "cw_wb", metric="distortion", **none),
        make.auc("mnist", "ce", "cw_wb", metric="distortion_median", **none),
        make.auc("mnist", "ce", "cw_wb", 0.0, metric="success_rate", threat="white_box"),
    ]
    cell, median = make.tables(rows)[0].rows[0].cells[:2]
    assert (cell.value, cell.warning, median.value) == ("n/a (n=0)", "CENSORED: success 0.00 %", "n/a (n=0)")


def test_every_form_of_the_table_prints_censored(make):
    rows = white(make, "ce", 0.08, success=0.87)
    result = make.study(rows, tables=["white_box"])
    (table,) = build_tables(result)
    out = io.StringIO()
    print_tables(result, Console(file=out, width=100))
    for text in (markdown(table), latex(table).replace("\\", ""), out.getvalue()):
        assert "CENSORED: success 87.00 %" in text
    assert all(len(line) <= 100 for line in out.getvalue().splitlines())


def test_several_seeds_of_a_distortion_are_averaged(make):
    rows = [row for seed, mean in enumerate((0.07, 0.09)) for row in white(make, "ce", mean, seed=seed)]
    cells = make.tables(rows)[0].rows[0].cells
    assert (cells[0].value, cells[0].interval) == (".0800", "± .0141 [.0600, .100]")
    assert cells[1].value == ".0720 [.0640, .0960]"


def swept(make, **more):
    """AUC .3 / .4 / .6 and distortion .3 / .2 / .1 at three bandwidths."""
    points = [("validation x2", 0.1, 0.6), ("validation", 0.2, 0.4), ("validation x0.5", 0.3, 0.3)]
    return [row for h, mean, auc in points for row in white(make, "ce", mean, auc=auc, bandwidth=h, **more)]


def test_the_paper_stands_at_the_plain_rule_and_scaled_bandwidths_in_the_sweep(make):
    main, sweep, equal = make.tables(swept(make), "white_box")
    assert [t.name for t in (main, sweep, equal)] == ["white_box", "white_box_sweep", "white_box_equal_auc"]
    assert main.rows[0].cells[0].value == ".200" and main.rows[0].cells[0].paper == ".087"
    assert [row.label for row in sweep.rows] == ["validation x0.5", "validation", "validation x2"]
    assert [[cell.value for cell in row.cells] for row in sweep.rows] == [
        [".300", "100.00", ".300"],
        [".200", "100.00", ".400"],
        [".100", "100.00", ".600"],
    ]
    assert not any(cell.paper for row in sweep.rows for cell in row.cells)
    # half way between AUC .4 and .6
    assert equal.rows[0].cells[0].value == ".150"
    assert "bandwidth_scale" not in sweep.caption and "detector KDE" in sweep.caption


def test_a_scaled_bandwidth_alone_has_a_table_without_the_papers_number(make):
    (table,) = make.tables(white(make, "ce", 0.1, bandwidth="validation x2"))
    assert table.rows[0].cells[0].value == ".100" and table.rows[0].cells[0].paper == ""


def test_equal_auc_outside_the_sweep_is_not_invented(make):
    rows = swept(make) + [
        row
        for h, auc in (("validation", 0.2), ("validation x2", 0.49))
        for row in white(make, "pdm", 0.1, auc=auc, bandwidth=h, success=0.5)
    ]
    equal = make.tables(rows, "white_box")[-1]
    found, outside = equal.rows[0].cells
    assert (found.value, found.warning) == (".150", "")
    assert (outside.value, outside.status) == ("n/a (AUC .200 to .490)", "n/a")
    assert outside.warning == "CENSORED: see the sweep"
    assert any("no two bandwidths" in note for note in equal.footnotes)


def test_equal_auc_interpolates_seed_by_seed(make):
    rows = swept(make, seed=0) + swept(make, seed=1)
    for row in rows:
        if row.seed == 1 and row.metric == "distortion":
            row.value += 0.02
    cell = make.tables(rows, "white_box")[-1].rows[0].cells[0]
    assert (cell.value, cell.interval, cell.details) == (".160", "± .0141", ("2 seeds",))


def test_plain_rules_each_have_a_table_and_share_one_sweep(make):
    rows = [row for h in ("validation", "loo", 0.26) for row in white(make, "ce", 0.1, bandwidth=h)]
    names = [table.name for table in make.tables(rows)]
    assert names == [
        "white_box-validation",
        "white_box-loo",
        "white_box-0-26",
        "white_box_sweep",
        "white_box_equal_auc",
    ]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6, unique_by=lambda p: p[0])
)
def test_interpolation_agrees_with_numpy(points):
    ordered = sorted(points)
    auc, distance = np.array(ordered).T
    inside = auc[0] <= 0.5 <= auc[-1]
    found = at_level(ordered)
    assert found == pytest.approx(np.interp(0.5, auc, distance), abs=1e-9) if inside else found is None


def test_interpolation_by_hand():
    assert at_level([(0.6, 0.1), (0.4, 0.3)]) == pytest.approx(0.2)
    assert at_level([(0.5, 0.1), (0.5, 0.3)]) == pytest.approx(0.2)
    assert at_level([(0.5, 0.1)]) is None and at_level([]) is None
    # neighbours are bandwidths: the middle one is on neither side of the level alone
    assert at_level([(0.503, 0.16), (0.51, 0.11), (0.497, 0.08)]) == pytest.approx(0.11 - 0.03 * 10 / 13)


def test_summary_has_the_papers_distortion_at_the_plain_rule_alone(make):
    result = make.study(swept(make), tables=["summary"])
    shown = {
        table.name: [row.cells[3].value for row in table.rows if row.label == "Mean distortion"]
        for table in build_tables(result)
    }
    assert sorted(value for values in shown.values() for value in values) == ["", "", ".087"]
