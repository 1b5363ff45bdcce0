"""The figure of a term's weight: which trainings stand on which curve, and where."""

from __future__ import annotations

from typing import Any

import pytest

from pdm_lightning.report import Row
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.plan import Entry
from pdm_lightning.study.weights_figure import weights


def trained(weight: float, *more: str, seed: int = 0, **values: float) -> tuple[Entry, list[Row]]:
    """A model whose RVL weight was asked for, with its clean rows."""
    use, label = (["ce", "rvl"], "CE+RVL") if "defense=ce" in more else (["rce", "rvl"], "PDM")
    config: dict[str, Any] = {
        group: {"name": name, "label": name}
        for group, name in {"data": "digits", "model": "resnet8", "budget": "smoke"}.items()
    }
    config["defense"] = {"name": label, "label": label, "use": use, "term": {"rvl": {"weight": weight}}}
    cell = Cell(config | {"seed": seed}, (*more, f"defense.term.rvl.weight={weight}"))
    rows = [Row(metric=metric, seed=seed, value=value) for metric, value in values.items()]
    return Entry(cell, {}), rows


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
    lost = trained(1.0)
    lost[1].append(Row(metric="accuracy", status="failed"))
    assert weights([fixed, lost])[0].panels == []
    # a weight of a term that the defence does not use changes nothing
    entry, rows = trained(1.0, accuracy=0.8)
    other = {**entry.cell.config, "defense": {**entry.cell.config["defense"], "use": ["rce"]}}
    assert weights([fixed, (Entry(Cell(other, entry.cell.overrides), {}), rows)])[0].panels == []


def test_a_weight_of_zero_has_no_logarithm() -> None:
    (figure,) = weights([trained(0.0, accuracy=0.9), trained(1.0, accuracy=0.8)])
    assert figure.panels[0]["x_log"] is False
