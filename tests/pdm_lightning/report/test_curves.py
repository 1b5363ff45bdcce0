"""Figures with curves, from entries and score artifacts made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from detection import proportion
from pdm_lightning.report import Row, write_report
from pdm_lightning.report.figures import figure_csv
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.curves import STEPS, auc_curves, convergence, curves, rejection
from pdm_lightning.study.plan import Entry, Node
from pdm_lightning.study.success_figure import success


def entry(
    attack: dict[str, Any],
    defense: str = "ce",
    threat: str = "gray_box",
    bandwidth: Any = "validation",
    seed: int = 0,
    overrides: tuple[str, ...] = (),
) -> Entry:
    config = {
        "data": {"name": "mnist", "label": "MNIST", "_target_": "x.torchvision_dataset"},
        "model": {"name": "resnet8"},
        "defense": {"name": defense, "label": defense.upper()},
        "budget": {"name": "cpu"},
        "threat": {"name": threat},
        "attack": {"name": "bim", "label": "BIM", "_target_": "attacks.BIM", **attack},
        "detector": {"name": "kde", "bandwidth": bandwidth},
        "seed": seed,
    }
    score = Node("score", {"of": [attack, defense, threat, str(bandwidth), seed]})
    return Entry(Cell(config, overrides), {"score": score})


def answer(made: Entry, note: str = "", **values: float | None) -> tuple[Entry, list[Row]]:
    """An entry with its rows; ``robust_accuracy_5`` stands for ``robust_accuracy@0.05``."""
    names = {
        group: made.cell.name(group) for group in ("data", "model", "defense", "budget", "threat", "attack")
    }
    where = {
        **names,
        "detector": "kde",
        "bandwidth": made.cell.config["detector"]["bandwidth"],
        "note": note,
        "seed": made.cell.config["seed"],
    }
    rows = [
        Row(
            **where,
            metric=metric.replace("_5", "@0.05").replace("_1", "@0.01"),
            value=value,
            status="n/a" if value is None else "ok",
        )
        for metric, value in values.items()
    ]
    return made, rows


def titles(figures: list[Any]) -> list[str]:
    (figure,) = figures
    assert figure.kind == "curves"
    return [panel["title"] for panel in figure.panels]


def test_a_gray_box_sweep_shows_accuracy_alone():
    answers = [
        answer(entry({"eps": eps}, defense), robust_accuracy=1 - eps, robust_accuracy_5=1 - eps / 2)
        for defense in ("ce", "pdm")
        for eps in (0.2, 0.1)
    ]
    (figure,) = curves(answers)
    assert [panel["title"] for panel in figure.panels] == ["MNIST, resnet8, BIM, budget cpu"]
    first, second = figure.panels[0]["series"]
    assert (first["label"], first["x"], first["y"]) == ("CE", [0.1, 0.2], [0.9, 0.8])
    assert second["label"] == "PDM" and figure.panels[0]["x_label"].startswith("eps (L-inf")
    assert figure.caption == "Shaded: 95 % Wilson intervals."


def test_a_swept_white_box_attack_has_a_panel_for_each_threshold():
    attack = {"name": "joint_pgd_l2", "label": "Joint PGD", "norm": "l2"}
    answers = [
        answer(
            entry({**attack, "eps": eps}, threat="white_box"),
            "capped: 9 images",
            robust_accuracy=0.5,
            robust_accuracy_1=0.3,
            robust_accuracy_5=0.4,
        )
        for eps in (1.0, 2.0)
    ]
    (figure,) = curves(answers)
    base = "MNIST, resnet8, Joint PGD, budget cpu"
    assert titles([figure]) == [base, f"{base}, 1 % false positives", f"{base}, 5 % false positives"]
    assert [panel["series"][0]["y"] for panel in figure.panels] == [[0.5, 0.5], [0.3, 0.3], [0.4, 0.4]]
    assert {panel["x_label"] for panel in figure.panels} == {"eps (L2, pixel range 1)"}
    assert figure.panels[2]["y_label"] == "accuracy with rejection"
    assert "Capped: 9 images." in figure.caption and "With rejection:" in figure.caption


def test_without_a_sweep_there_is_no_panel_with_rejection():
    made = answer(entry({"eps": 0.1}, threat="white_box"), robust_accuracy=0.5, robust_accuracy_5=0.4)
    assert titles(curves([made])) == ["MNIST, resnet8, BIM, budget cpu"]


def test_titles_name_the_seed_where_there_are_several():
    def swept(*seeds: int) -> list[str]:
        cells = [entry({"eps": eps}, seed=seed) for seed in seeds for eps in (0.1, 0.2)]
        return titles(curves([answer(cell, robust_accuracy=0.5) for cell in cells]))

    base = "MNIST, resnet8, {}BIM, budget cpu"
    assert swept(0, 1) == [base.format("seed 0, "), base.format("seed 1, ")]
    assert swept(1) == [base.format("")]


def two_settings() -> list[tuple[Entry, list[Row]]]:
    """A sweep over radius and iterations, each cell with values of its own."""
    found = []
    for eps in (0.02, 0.05):
        for steps in (1, 10):
            overrides = ("attack=bim", f"attack.eps={eps}", f"++attack.iterations={steps}")
            made = entry({"eps": eps, "iterations": steps}, overrides=overrides)
            craft = Node("craft", {"attack": made.cell.config["attack"]})
            values = dict.fromkeys(("robust_accuracy", "misclassified_rate", "auc"), eps + steps / 100)
            found.append(answer(Entry(made.cell, {**made.nodes, "craft": craft}), **values))
    return found


@pytest.mark.parametrize(
    ("draw", "panels"),
    [
        (curves, {"BIM[iterations=1], budget cpu", "BIM[iterations=10], budget cpu"}),
        (auc_curves, {f"BIM[iterations={n}], budget cpu, paired rule" for n in (1, 10)}),
        (success, {f"BIM[iterations={n}], budget cpu, paired rule" for n in (1, 10)}),
        (convergence, {f"BIM[eps={eps}], budget cpu, share misclassified" for eps in (0.02, 0.05)}),
    ],
)
def test_a_second_setting_of_the_attack_makes_another_panel(draw: Any, panels: set[str]) -> None:
    (figure,) = draw(two_settings())
    assert {title.removeprefix("MNIST, resnet8, ") for title in titles([figure])} == panels
    shown = [y for panel in figure.panels for series in panel["series"] for y in series["y"]]
    assert sorted(shown) == pytest.approx([0.03, 0.06, 0.12, 0.15])


def test_values_that_are_missing_leave_no_point():
    answers = [
        answer(entry({"eps": e}, threat="white_box"), robust_accuracy=0.5, robust_accuracy_1=None)
        for e in (0.1, 0.2)
    ]
    assert len(titles(curves(answers))) == 1


def test_threats_and_bandwidths_never_share_a_curve():
    answers = [
        answer(
            entry({"eps": eps}, threat=threat, bandwidth=h), robust_accuracy=value, robust_accuracy_5=value
        )
        for eps in (0.1, 0.2)
        for threat, h, value in (
            ("gray_box", "validation", 0.9),
            ("white_box", "validation", 0.5),
            ("white_box", "loo", 0.4),
        )
    ]
    (figure,) = curves(answers)
    found = {
        panel["title"].removeprefix("MNIST, resnet8, BIM, "): panel["series"][0]["y"][0]
        for panel in figure.panels
    }
    assert found == {
        "gray box, budget cpu": 0.9,
        "white box, kde validation, budget cpu": 0.5,
        "white box, kde loo, budget cpu": 0.4,
        "gray box, kde validation, budget cpu, 5 % false positives": 0.9,
        "white box, kde validation, budget cpu, 5 % false positives": 0.5,
        "white box, kde loo, budget cpu, 5 % false positives": 0.4,
    }


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """Opens one score artifact: distances 1 to 4, the third image not fooled, the fourth flagged."""
    scores = {
        "index": np.arange(4),
        "clean": np.zeros(4),
        "adversarial": np.array([1.0, 2.0, 0.0, 2.1]),
        "fooled": np.array([True, True, False, True]),
        "l2": np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32),
        "linf": np.ones(4, dtype=np.float32),
    }
    save_file(scores, tmp_path / "scores.safetensors")
    (tmp_path / "score.json").write_text(json.dumps({"thresholds": {"0.05": 2.0, "0.01": None}}))
    artifact = SimpleNamespace(
        file=lambda name: tmp_path / name, json=lambda name: json.loads((tmp_path / name).read_text())
    )
    return lambda node: artifact


def test_the_rejection_curve_falls_where_a_joint_success_is_within_reach(opened, make, tmp_path):
    made = entry(
        {"name": "cw_wb", "label": "C&W-wb", "_target_": "attacks.CarliniWagnerWhiteBox"}, threat="white_box"
    )
    (figure,) = rejection([answer(made, joint_success_5=0.5, joint_success_1=None)], opened)
    assert titles([figure]) == ["MNIST, resnet8, C&W-wb, budget cpu, 5 % false positives"]
    (series,) = figure.panels[0]["series"]
    # only the first two images are misclassified with a score that is not above 2
    assert series["x"] == pytest.approx(np.linspace(0, 2, STEPS))
    assert series["y"] == [1.0 if x < 1 else 0.75 if x < 2 else 0.5 for x in series["x"]]
    assert (series["low"][-1], series["high"][-1]) == (proportion(2, 4).low, proportion(2, 4).high)
    assert figure.panels[0].keys() == {"title", "x_label", "y_label", "series"}
    write_report(tmp_path / "report", make.study([], figures=[figure]))
    assert (tmp_path / "report" / "figures" / "rejection.csv").read_text().count("\n") == STEPS + 1


def test_each_setting_of_a_minimum_norm_attack_has_a_panel_of_rejection(opened):
    answers = [answer(entry({}, overrides=(f"attack.confidence={k}",)), joint_success_5=0.5) for k in (0, 9)]
    base = "MNIST, resnet8, BIM[confidence={}], budget cpu, 5 % false positives"
    assert titles(rejection(answers, opened)) == [base.format(0), base.format(9)]


@pytest.mark.parametrize(
    "attack",
    [{"eps": 0.1}, {"norm": "linf"}, {"name": "jsma", "_target_": "attacks.JSMA"}],
)
def test_attacks_that_do_not_minimise_an_l2_distance_have_no_rejection_curve(opened, attack):
    (figure,) = rejection([answer(entry(attack), joint_success_5=0.5)], opened)
    assert figure.panels == []


def test_an_artifact_that_is_not_there_has_no_curve():
    (figure,) = rejection([answer(entry({}), joint_success_5=0.5)], lambda node: None)
    assert figure.panels == []


def test_a_refused_attack_has_no_curve(opened):
    refused = Entry(entry({}).cell, {}, refused="no")
    (figure,) = rejection([(refused, [Row(metric="auc", attack="bim", status="refused")])], opened)
    assert figure.panels == []


def test_an_attack_that_never_succeeds_jointly_is_a_flat_curve(tmp_path):
    save_file(
        {"adversarial": np.ones(3), "fooled": np.zeros(3, dtype=bool), "l2": np.ones(3)},
        tmp_path / "scores.safetensors",
    )
    artifact = SimpleNamespace(
        file=lambda name: tmp_path / name, json=lambda name: {"thresholds": {"0.05": 2.0}}
    )
    (figure,) = rejection([answer(entry({}), joint_success_5=0.0)], lambda node: artifact)
    assert set(figure.panels[0]["series"][0]["y"]) == {1.0}


#: By radius: the share fooled, and the AUC.
FOOLED = {0.2: (0.9, 0.98), 0.02: (0.05, None), 0.1: (0.6, 0.95), 0.05: (0.4, 0.91)}


def fooled(*seeds: int) -> list[tuple[Entry, list[Row]]]:
    return [
        answer(entry({"eps": eps}, seed=seed), misclassified_rate=share, auc=auc)
        for seed in seeds
        for eps, (share, auc) in FOOLED.items()
    ]


def test_auc_against_success_has_a_line_for_each_seed():
    (figure,) = success(fooled(0, 1))
    (panel,) = figure.panels
    assert panel["title"] == "MNIST, resnet8, BIM, budget cpu, paired rule"
    first, second = panel["series"]
    assert (first["label"], first["name"], second["name"]) == ("CE", "CE, seed 0", "CE, seed 1")
    assert (first["x"], first["y"]) == ([0.4, 0.6, 0.9], [0.91, 0.95, 0.98])
    assert "Shaded" not in figure.caption
    assert figure_csv(figure).count('"CE, seed 1",0.4,0.91') == 1


def test_auc_against_success_of_one_seed_names_none():
    (figure,) = success(fooled(0))
    assert "name" not in figure.panels[0]["series"][0] and "Shaded" in figure.caption
    # one radius is no curve
    assert success(fooled(0)[:1])[0].panels == []
