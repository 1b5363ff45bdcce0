from __future__ import annotations

from dataclasses import replace

import pytest

from pdm_lightning.report import build_tables, paper_value, published
from pdm_lightning.report.cells import aggregate


def tables_of(result, kind):
    return [table for table in build_tables(result) if table.kind == kind]


def column(table, group, label):
    return [(c.group, c.label) for c in table.columns].index((group, label))


def row(table, label):
    return next(r for r in table.rows if r.label == label)


def test_detection_has_attacks_as_rows_and_defences_within_data_sets(make):
    paired, kept = tables_of(make.full_study(), "detection")
    assert [r.label for r in paired.rows] == ["FGSM-0.05", "C&W"]
    assert [(c.group, c.label) for c in paired.columns] == [
        ("MNIST", "CE"),
        ("MNIST", "PDM"),
        ("Digits", "CE"),
        ("Digits", "PDM"),
    ]
    cell = row(paired, "FGSM-0.05").cells[column(paired, "Digits", "CE")]
    assert (cell.value, cell.interval, cell.n) == (".987", "[.970, .990]", "100")
    assert cell.details == ("fooled 88 % of 540",)
    assert row(kept, "FGSM-0.05").cells[0].value == ".600"
    assert "failures kept" in kept.caption and "paired" in paired.caption


def test_caption_names_budget_model_detector_bandwidth_rule_and_n(make):
    caption = tables_of(make.full_study(), "detection")[0].caption
    for words in (
        "Budget toy",
        "model ResNet-8",
        "gray box",
        "detector KDE",
        "bandwidth rule validation",
        "n = 12 to 100",
    ):
        assert words in caption


def test_below_fifty_pairs_the_cell_says_so_with_its_n(make):
    table = tables_of(make.full_study(), "detection")[0]
    assert row(table, "C&W").cells[0].value == "n/a (n=12)"
    assert any(note.startswith("n/a:") for note in table.footnotes)


def test_the_papers_numbers_stand_beside_its_data_sets_only(make):
    names = ("mnist", "cifar10", "cifar10_jpeg", "digits", "fashion_mnist")
    rows = [make.auc(data, "pdm", "fgsm_005") for data in names]
    rows += [make.accuracy(data, "pdm") for data in names]
    rows += [make.auc("mnist", "pdm", "fgsm_005", threat="white_box")]
    result = make.study(rows, labels={})
    gray, white = tables_of(result, "detection")
    assert [cell.paper for cell in gray.rows[0].cells] == [".988", ".967", "", "", ""]
    assert [cell.paper for cell in white.rows[0].cells] == [""]
    assert [r.cells[0].paper for r in tables_of(result, "accuracy")[0].rows] == ["99.52", "93.81", "", "", ""]
    assert any("ResNet-56" in note for note in gray.footnotes) and not white.footnotes


def test_published_numbers_are_the_papers():
    book = published()
    table2 = book["auc"]["gray_box"]
    assert table2["mnist"]["cw_hc"] == {"base": 0.88, "rce": 0.98, "pdm": 1}
    assert table2["cifar10"]["bim_005"] == {"base": 1, "rce": 0.99, "pdm": 0.95}
    assert all(len(table2[data]) == 7 for data in table2)
    # sums over all of the table, taken from the paper by hand: a wrong digit anywhere shows
    sums = {data: round(sum(sum(line.values()) for line in table2[data].values()), 3) for data in table2}
    assert sums == {"mnist": 20.566, "cifar10": 19.788}
    assert paper_value("accuracy", "cifar10", "siamese_rvl") == 0.9437
    assert paper_value("auc", "cifar10", "pdm", "cw_wb", "black_box") == 0.952
    assert paper_value("distortion", "mnist", "rce", "cw_wb", "white_box") == 0.104
    assert paper_value("dbi", "cifar10", "ce") == 0.98
    names = ("ce", "rce", "pdm")
    shown = {
        (metric, threat, data): [paper_value(metric, data, name, "cw_wb", threat) for name in names]
        for metric, threat in (("distortion", "white_box"), ("auc", "black_box"))
        for data in ("mnist", "cifar10")
    }
    assert shown == {
        ("distortion", "white_box", "mnist"): [0.087, 0.104, 0.162],
        ("distortion", "white_box", "cifar10"): [0.008, 0.019, 0.026],
        ("auc", "black_box", "mnist"): [0.88, 0.94, 0.99],
        ("auc", "black_box", "cifar10"): [0.93, 0.933, 0.952],
    }
    assert paper_value("auc", "mnist", "pdm", "cw_wb", "transfer") is None
    assert paper_value("auc", "mnist", "pdm", "cw_converged") is None


def test_a_capped_attack_gets_a_dagger_and_its_footnote(make):
    note = "capped: 100 of 540 images, 50 of 1000 iterations"
    rows = [make.auc("digits", "ce", "cw", note=note), make.auc("digits", "ce", "fgsm_005")]
    table = tables_of(make.study(rows), "detection")[0]
    assert (row(table, "C&W").marks, row(table, "FGSM-0.05").marks) == ("†", "")
    assert "† C&W was capped: 100 of 540 images, 50 of 1000 iterations." in table.footnotes


def test_caps_that_differ_between_data_sets_name_them(make):
    rows = [
        make.auc("digits", "ce", "cw", note="capped: 100 of 540 images"),
        make.auc("mnist", "ce", "cw", note="capped: 100 of 2000 images"),
    ]
    notes = tables_of(make.study(rows), "detection")[0].footnotes
    assert "† C&W was capped: 100 of 2000 images (MNIST); 100 of 540 images (Digits)." in notes


@pytest.mark.parametrize("how", ["note", "metric"])
def test_a_collapsed_training_is_marked_in_every_table(make, how):
    rows = [make.accuracy("digits", "pdm"), make.accuracy("digits", "ce"), make.auc("digits", "pdm", "cw")]
    if how == "note":
        rows[0].note = "collapsed"
    else:
        rows.append(make.accuracy("digits", "pdm", 1.0, metric="collapsed"))
    result = make.study(rows)
    accuracy, detection = tables_of(result, "accuracy")[0], tables_of(result, "detection")[0]
    assert [cell.marks for cell in accuracy.rows[0].cells] == ["", "‡"]
    assert detection.rows[0].cells[0].marks == "‡"
    assert [r.marks for r in tables_of(result, "ablation")[0].rows] == ["", "‡"]
    for table in (accuracy, detection, *tables_of(result, "ablation")):
        assert any("PDM on Digits" in note for note in table.footnotes if note.startswith("‡"))


def test_gaps_are_printed_and_explained(make):
    rows = [
        make.auc("digits", "ce", "cw", None, status="failed"),
        make.auc("digits", "rce", "cw", None, status="refused"),
        make.auc("digits", "pdm", "fgsm_005"),
    ]
    table = tables_of(make.study(rows), "detection")[0]
    assert [cell.value for cell in row(table, "C&W").cells] == ["failed", "\u2013", "missing"]
    assert [note.split(":")[0] for note in table.footnotes] == ["failed", "missing", "\u2013"]


def test_several_seeds_show_mean_deviation_and_their_number(make):
    rows = [make.auc("digits", "ce", "cw", value, seed=s) for s, value in enumerate((0.90, 0.92, 0.94))]
    rows.append(make.auc("digits", "ce", "fgsm_005", 0.9, seed=0))
    rows.append(make.auc("digits", "ce", "fgsm_005", None, seed=1, status="failed"))
    table = tables_of(make.study(rows), "detection")[0]
    cell = row(table, "C&W").cells[0]
    assert (cell.value, cell.interval, cell.details) == (".920", "± .020 [.870, .970]", ("3 seeds",))
    assert row(table, "FGSM-0.05").cells[0].details == ("1 of 2 seeds",)
    assert (
        "standard deviation over 3 seeds, in brackets the 95 % t interval of the mean; with one seed, in brackets "
        "the 95 % bootstrap" in table.caption
    )


def test_a_t_interval_is_cut_off_at_the_ends_of_a_rate_in_print_alone(make):
    rows = [make.auc("digits", "ce", "cw", value, seed=s) for s, value in enumerate((0.96, 0.98, 1.0))]
    measure = aggregate(rows)
    cell = tables_of(make.study(rows), "detection")[0].rows[0].cells[0]
    assert measure.high > 1 > measure.low  # 0.98 -+ 4.303 * 0.02 / sqrt(3)
    assert (cell.interval, cell.strip.high) == ("± .020 [.930, 1.000]", 1.0)


def test_two_seeds_show_the_ends_of_their_own_intervals(make):
    """With one degree of freedom a t interval of .9 and .92 would be [.783, 1.037]."""
    ends = ((0.90, 0.88, 0.93), (0.92, 0.89, 0.95))
    rows = [
        replace(make.auc("digits", "ce", "cw", value, seed=s), ci_low=low, ci_high=high)
        for s, (value, low, high) in enumerate(ends)
    ]
    table = tables_of(make.study(rows), "detection")[0]
    cell = table.rows[0].cells[0]
    assert (cell.value, cell.interval) == (".910", "± .014 [.880, .950]")
    assert (cell.strip.low, cell.strip.high) == (0.88, 0.95)
    assert (
        "over 2 seeds, in brackets from the lowest to the highest end of their own 95 % intervals"
        in table.caption
    )
    assert aggregate(rows).high > 1, "tests keep the t interval"


def test_seeds_that_do_not_differ_are_told_in_the_caption(make):
    rows = [make.auc("digits", "ce", "cw", 1.0, seed=s) for s in range(3)]
    rows = [replace(row, ci_low=0.98, ci_high=1.0) for row in rows]
    table = tables_of(make.study(rows), "detection")[0]
    assert table.rows[0].cells[0].interval.endswith("[.980, 1.000]")
    assert "(where seeds do not differ, the mean of their own 95 % intervals)" in table.caption


def test_a_table_without_a_value_speaks_of_no_seed(make):
    table = tables_of(make.study([make.auc("digits", "ce", "cw", None, status="n/a")]), "detection")[0]
    assert "seed" not in table.caption


def test_two_seeds_without_intervals_show_their_deviation_alone(make):
    rows = [make.auc("digits", "ce", "cw", value, seed=s) for s, value in enumerate((0.90, 0.92))]
    table = tables_of(make.study(rows), "detection")[0]
    assert (table.rows[0].cells[0].interval, table.rows[0].cells[0].strip.low) == ("± .014", None)
    assert "Mean ± standard deviation over 2 seeds." in table.caption


def test_blocks_are_separate_tables_with_their_own_names(make):
    rows = [make.auc("digits", "ce", "cw", bandwidth=h) for h in ("validation", "loo", 0.26)]
    tables = tables_of(make.study(rows), "detection")
    assert [t.name for t in tables] == ["detection-validation", "detection-loo", "detection-0-26"]
    assert "bandwidth 0.26" in tables[2].caption and tables[2].title.endswith("h = 0.26")


def test_ablation_and_summary_hold_every_number(make):
    result = make.full_study()
    ablation = next(t for t in tables_of(result, "ablation") if t.name == "ablation-digits")
    assert [c.label for c in ablation.columns] == ["Accuracy, %", "Davies-Bouldin index", "FGSM-0.05", "C&W"]
    assert [cell.value for cell in ablation.rows[0].cells] == ["99.00", "0.400", ".987", "n/a (n=12)"]
    summary = next(t for t in tables_of(result, "summary") if t.name == "summary-mnist-ce")
    shown = [(r.section, r.label, r.cells[0].value, r.cells[3].value) for r in summary.rows]
    assert shown == [
        ("Clean images", "Accuracy, %", "99.00", "99.33"),
        ("Clean images", "Davies-Bouldin index", "0.400", ""),
        ("FGSM-0.05", "Images fooled, %", "88.00", ""),
        ("FGSM-0.05", "AUC, paired rule", ".987", ".981"),
        ("FGSM-0.05", "AUC, failures kept", ".600", ""),
        ("C&W", "AUC, paired rule", "n/a (n=12)", ".994"),
    ]


def test_a_strip_scale_holds_an_auc_below_one_half(make):
    rows = [
        make.auc("digits", "ce", "fgsm_005", 0.9),
        make.auc("digits", "ce", "cw", 0.3, ci_low=0.2, ci_high=0.4),
    ]
    result = make.study(rows)
    assert tables_of(result, "detection")[0].columns[0].scale == (0.0, 1.0)
    assert tables_of(result, "ablation")[0].strip_legend == "AUC 0 to 1"
    assert tables_of(make.study(rows[:1]), "detection")[0].columns[0].scale == (0.5, 1.0)


def test_only_the_tables_that_were_asked_for_in_their_order(make):
    result = make.full_study()
    result.tables = ["summary", "accuracy"]
    kinds = [table.kind for table in build_tables(result)]
    assert kinds == ["summary"] * 4 + ["accuracy"]
