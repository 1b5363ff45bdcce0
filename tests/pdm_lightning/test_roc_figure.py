"""The figure of ROC curves, from score artifacts made by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pdm_lightning.report import Row
from pdm_lightning.study import roc_figure
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.plan import Entry, Node
from pdm_lightning.study.roc_figure import MOST_PANELS, roc_curves

NAMES = {"data": "digits", "model": "resnet8", "budget": "smoke", "threat": "gray_box", "detector": "kde"}


@pytest.fixture
def study(tmp_path: Any) -> Any:
    """Makes answered entries; their artifacts are opened by `study.opened`."""
    folders: dict[str, Any] = {}

    def add(
        clean: Any,
        adversarial: Any,
        fooled: Any = None,
        value: float | None = 0.95,
        thresholds: Any = None,
        **names: str,
    ) -> tuple[Entry, list[Row]]:
        where = NAMES | {"defense": "ce", "attack": "fgsm"} | names
        config: dict[str, Any] = {group: {"name": name} for group, name in where.items()}
        node = Node("score", {"number": len(folders)})
        folder = tmp_path / node.key
        folder.mkdir()
        won = np.ones(len(clean), bool) if fooled is None else np.asarray(fooled)
        arrays = {
            "clean": np.asarray(clean, float),
            "adversarial": np.asarray(adversarial, float),
            "fooled": won,
        }
        save_file(arrays, folder / "scores.safetensors")
        (folder / "score.json").write_text(json.dumps({"thresholds": thresholds or {}}))
        folders[node.key] = SimpleNamespace(
            file=lambda name: folder / name, json=lambda name: json.loads((folder / name).read_text())
        )
        status = "n/a" if value is None else "ok"
        row = Row(**where, metric="auc", value=value, status=status)  # type: ignore[arg-type]
        return Entry(Cell(config | {"seed": 0}), {"score": node}), [row]

    return SimpleNamespace(add=add, opened=lambda node: folders.get(node.key), folders=folders)


def area(series: dict[str, Any]) -> float:
    x, y = np.asarray(series["x"]), np.asarray(series["y"])
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum())


def pairs_won(clean: np.ndarray, adversarial: np.ndarray) -> float:
    """Share of the pairs in which the adversarial image scores higher, ties half: what an AUC is."""
    gap = adversarial[:, None] - clean[None]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())


def test_the_area_is_that_of_the_pairs_that_were_fooled(study: Any) -> None:
    rng = np.random.default_rng(0)
    # whole numbers: many ties
    clean, adversarial = rng.integers(0, 9, 80), rng.integers(2, 12, 80)
    fooled = rng.random(80) < 0.7
    (figure,) = roc_curves([study.add(clean, adversarial, fooled)], study.opened)
    (series,) = figure.panels[0]["series"]
    assert area(series) == pytest.approx(pairs_won(clean[fooled], adversarial[fooled]), abs=1e-12)
    assert figure.panels[0]["title"] == "digits, resnet8, fgsm, gray box"


def test_a_long_curve_is_thinned_and_keeps_its_area(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roc_figure, "MOST_POINTS", 300)
    rng = np.random.default_rng(1)
    clean, adversarial = rng.normal(size=1500), rng.normal(size=1500) + 1
    (figure,) = roc_curves([study.add(clean, adversarial)], study.opened)
    (series,) = figure.panels[0]["series"]
    assert len(series["x"]) == 300
    # cutting corners of width w and height h costs at most w h / 2 each: less than the largest of one kind
    steps = np.diff(series["x"]).max()
    assert abs(area(series) - pairs_won(clean, adversarial)) <= steps / 2


def test_operating_points_are_the_rates_above_the_thresholds(study: Any) -> None:
    limits = {"0.01": None, "0.05": 2.5, "0.5": 1.0}
    made = study.add([0, 1, 2, 3], [1, 2, 3, 4], thresholds=limits)
    (figure,) = roc_curves([made], study.opened)
    assert figure.panels[0]["series"][0]["marks"] == [(0.25, 0.5), (0.5, 0.75)]
    assert figure.caption.endswith("for 5 % false positives and 50 % false positives.")


def test_one_panel_an_attack_and_one_curve_a_defence(study: Any) -> None:
    answers = [
        study.add([0, 1], [2, 3], defense=defense, attack=attack, value=value)
        for attack in ("fgsm", "bim")
        for defense, value in (("ce", 0.91), ("pdm", 0.99), ("rce", None), ("ce", 0.5))
    ]
    (figure,) = roc_curves(answers, study.opened)
    assert [[s["label"] for s in panel["series"]] for panel in figure.panels] == [
        ["ce, AUC .910", "pdm, AUC .990"]
    ] * 2
    # all areas near 1: their differences lie at small rates
    assert all(panel["x_log"] for panel in figure.panels)
    (plain,) = roc_curves([study.add([0, 1], [2, 3], value=0.6)], study.opened)
    assert "x_log" not in plain.panels[0]


def test_detectors_never_share_a_panel(study: Any) -> None:
    answers = [study.add([0], [1], detector=name) for name in ("kde", "knn")]
    (figure,) = roc_curves(answers, study.opened)
    assert [panel["title"].rpartition(", ")[2] for panel in figure.panels] == ["kde", "knn"]


def test_more_panels_than_are_legible_are_left_out_and_counted(study: Any) -> None:
    answers = [study.add([0], [1], attack=f"a{k}") for k in range(MOST_PANELS + 3)]
    (figure,) = roc_curves(answers, study.opened)
    assert len(figure.panels) == MOST_PANELS
    assert f"{MOST_PANELS} of {MOST_PANELS + 3} panels are drawn" in figure.caption


def test_what_is_missing_leaves_no_curve(study: Any) -> None:
    made = study.add([0], [1])
    study.folders.clear()
    (figure,) = roc_curves([made], study.opened)
    assert figure.panels == []
