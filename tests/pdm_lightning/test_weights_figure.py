"""The figure of a term's weight: which trainings stand on which curve, and where."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pdm_lightning.report import Row
from pdm_lightning.report.draw import draw_panel
from pdm_lightning.report.figures import figure_csv
from pdm_lightning.report.palette import LIGHT
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.plan import Entry
from pdm_lightning.study.weights_figure import weights


def trained(
    weight: float, *more: str, seed: int = 0, note: str = "", **values: float
) -> tuple[Entry, list[Row]]:
    """A model whose RVL weight was asked for, with its clean rows; without values, a training that failed."""
    use, label = (["ce", "rvl"], "CE+RVL") if "defense=ce" in more else (["rce", "rvl"], "PDM")
    config: dict[str, Any] = {
        group: {"name": name, "label": name}
        for group, name in {"data": "digits", "model": "resnet8", "budget": "smoke"}.items()
    }
    config["defense"] = {"name": label, "label": label, "use": use, "term": {"rvl": {"weight": weight}}}
    cell = Cell(config | {"seed": seed}, (*more, f"defense.term.rvl.weight={weight}"))
    rows = [Row(metric=metric, seed=seed, value=value, note=note) for metric, value in values.items()]
    return Entry(cell, {}), rows or [Row(metric="accuracy", seed=seed, status="failed")]


def test_a_curve_runs_over_the_weights_and_its_band_over_the_seeds() -> None:
    answers = [
        trained(1.0, accuracy=0.4, dbi=2.0),
        trained(0.1, seed=0, accuracy=0.9, dbi=0.5),
        trained(0.1, seed=1, accuracy=0.8, dbi=0.7),
        trained(0.1, "defense=ce", accuracy=0.99),
    ]
    (figure,) = weights(answers)
    accuracy, index = figure.panels
    pdm, ce = accuracy["series"]
    assert (pdm["label"], pdm["x"]) == ("PDM", [0.1, 1.0])
    assert pdm["y"] == pytest.approx([85, 40]) and pdm["low"] == pytest.approx([80, 40])
    assert pdm["high"] == pytest.approx([90, 40])
    assert ce["label"] == "CE+RVL" and ce["y"] == pytest.approx([99]) and "low" not in ce
    assert (index["series"][0]["y"], accuracy["x_log"]) == (pytest.approx([0.6, 2.0]), True)
    assert (accuracy["title"], accuracy["y_label"]) == ("digits, resnet8: Accuracy", "Accuracy, %")


def test_other_settings_make_other_curves_and_other_budgets_other_panels() -> None:
    loose = "defense.term.rvl.squared=false"
    answers = [trained(weight, *more, accuracy=0.9) for weight in (0.1, 1.0) for more in ((), (loose,))]
    (figure,) = weights(answers)
    assert [series["label"] for series in figure.panels[0]["series"]] == [
        "PDM",
        "PDM[term.rvl.squared=false]",
    ]
    answers += [trained(weight, "optimizer=sgd_paper", accuracy=0.5) for weight in (0.1, 1.0)]
    (figure,) = weights(answers)
    assert [panel["title"] for panel in figure.panels] == [
        "digits, resnet8, smoke: Accuracy",
        "digits, resnet8, smoke[optimizer=sgd_paper]: Accuracy",
    ]


def test_what_was_not_swept_or_not_measured_is_not_drawn() -> None:
    fixed = trained(0.1, accuracy=0.9)
    assert weights([fixed])[0].panels == []
    assert weights([trained(0.1), trained(1.0)])[0].panels == []
    # a weight of a term that the defence does not use changes nothing
    entry, rows = trained(1.0, accuracy=0.8)
    other = {**entry.cell.config, "defense": {**entry.cell.config["defense"], "use": ["rce"]}}
    assert weights([fixed, (Entry(Cell(other, entry.cell.overrides), {}), rows)])[0].panels == []


def with_rce(rvl: float, rce: float, **values: float) -> tuple[Entry, list[Row]]:
    """A model whose weights of both terms were asked for."""
    entry, rows = trained(rvl, f"defense.term.rce.weight={rce}", **values)
    entry.cell.config["defense"]["term"]["rce"] = {"weight": rce}
    return entry, rows


def drawn(answers: list[tuple[Entry, list[Row]]]) -> dict[str, dict[str, list[float]]]:
    """By axis and curve, the weights."""
    (figure,) = weights(answers)
    return {
        panel["x_label"]: {series["label"]: series["x"] for series in panel["series"]}
        for panel in figure.panels
    }


def test_of_two_terms_each_has_a_panel_with_the_lines_along_its_weight() -> None:
    grid = [with_rce(rvl, rce, accuracy=0.9) for rvl in (0.1, 1.0) for rce in (1.0, 9.0)]
    assert drawn(grid) == {
        "weight of rce": {f"PDM[term.rvl.weight={x}]": [1.0, 9.0] for x in (0.1, 1.0)},
        "weight of rvl": {f"PDM[term.rce.weight={x}]": [0.1, 1.0] for x in (1.0, 9.0)},
    }
    # both from the same training: what lies on the one line is no curve of one point beside the other
    cross = [with_rce(*at, accuracy=0.9) for at in ((0.1, 1.0), (1.0, 1.0), (1.0, 3.0), (1.0, 9.0))]
    assert drawn(cross) == {
        "weight of rce": {"PDM[term.rvl.weight=1.0]": [1.0, 3.0, 9.0]},
        "weight of rvl": {"PDM[term.rce.weight=1.0]": [0.1, 1.0]},
    }


def test_trainings_that_never_differ_in_one_weight_alone_make_no_panel() -> None:
    assert drawn([with_rce(0.1, 1.0, accuracy=0.9), with_rce(1.0, 9.0, accuracy=0.9)]) == {}
    # a training that stands on no line is a point beside one
    answers = [with_rce(x, 1.0, accuracy=0.9) for x in (0.1, 1.0)] + [with_rce(1.0, 9.0, accuracy=0.9)]
    assert drawn(answers)["weight of rce"] == {"PDM[term.rvl.weight=1.0]": [1.0, 9.0]}
    answers[2] = with_rce(0.3, 9.0, accuracy=0.9)
    assert drawn(answers) == {
        "weight of rvl": {"PDM[term.rce.weight=1.0]": [0.1, 1.0], "PDM[term.rce.weight=9.0]": [0.3]}
    }


def test_a_weight_of_zero_has_no_logarithm() -> None:
    (figure,) = weights([trained(0.0, accuracy=0.9), trained(1.0, accuracy=0.8)])
    assert figure.panels[0]["x_log"] is False


def test_a_seed_that_failed_is_marked_and_no_line_passes_over_its_place() -> None:
    answers = [trained(x, seed=seed, accuracy=0.9, dbi=0.5) for x in (0.01, 1.0) for seed in (0, 1)]
    answers += [trained(0.1, seed=0, accuracy=0.8, dbi=0.6), trained(0.1, seed=1)]
    answers += [trained(0.3, seed=seed) for seed in (0, 1)]
    (figure,) = weights(answers)
    accuracy, index = (panel["series"][0] for panel in figure.panels)
    assert accuracy["x"] == index["x"] == [0.01, *[0.1] * 3, *[0.3] * 3, 1.0]
    assert accuracy["y"] == pytest.approx([90, None, 80, *[None] * 4, 90])
    assert accuracy["low"] == pytest.approx(accuracy["y"])
    assert accuracy["signs"] == index["signs"] == {"failed": [(0.1, None), (0.3, None), (0.3, None)]}
    assert "Cross at the bottom" in figure.caption and "Ring" not in figure.caption
    # where all others failed, too, the one that is left is a panel all the same
    assert weights([answers[0], *answers[-2:]])[0].panels[0]["series"][0]["x"] == [0.01, *[0.3] * 3]


def test_a_collapsed_seed_and_a_measure_without_a_value_are_marked() -> None:
    answers = [
        trained(0.1, accuracy=0.9, dbi=0.5),
        trained(1.0, seed=0, accuracy=0.2, dbi=9.0, note="collapsed"),
        trained(1.0, seed=1, accuracy=0.4),
    ]
    answers[-1][1].append(Row(metric="dbi", seed=1, status="n/a"))
    (figure,) = weights(answers)
    accuracy, index = (panel["series"][0] for panel in figure.panels)
    assert accuracy["y"] == pytest.approx([90, 30])
    assert accuracy["signs"] == {"collapsed": [(1.0, pytest.approx(20))]}
    assert index["signs"] == {"collapsed": [(1.0, 9.0)], "n/a": [(1.0, None)]}
    assert "Ring" in figure.caption and "Cross" in figure.caption


def test_signs_are_drawn_named_once_and_written_to_the_csv() -> None:
    more = ("defense=ce",)
    answers = [trained(0.1, *word, accuracy=0.9) for word in ((), more)]
    answers += [trained(1.0, *word, seed=seed) for word in ((), more) for seed in (0, 1)]
    answers += [trained(0.3, accuracy=0.1, note="collapsed")]
    (figure,) = weights(answers)
    axes = Axes(Canvas(), (0.0, 0.0, 1.0, 1.0))
    draw_panel(axes, "curves", figure.panels[0], LIGHT)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["PDM", "CE+RVL", "collapsed", "failed"]
    written = [line.split('",', 1)[1] for line in figure_csv(figure).splitlines()[1:]]
    assert written[0] == "PDM,0.1,90.0,,"
    assert '"PDM, collapsed",0.3,10.0,,' in written and written[-1] == '"CE+RVL, failed",1.0,,,'
    assert len(written) == 3 + 1 + 4  # what interrupts a line is no point
