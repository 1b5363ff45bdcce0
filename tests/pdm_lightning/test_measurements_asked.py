"""Which measurements a study asks for, and what its rows and figures tell of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pdm_lightning.study import measure, measured_figures
from pdm_lightning.study.ask import ask
from pdm_lightning.study.plan import make_plan


def planned(*words: str) -> Any:
    return make_plan(ask("plan", ["-m", "data=digits", "budget=smoke", *words]))


def test_no_walk_of_an_attack_that_aims_or_sees_the_detector() -> None:
    figures = "report.figures=[walk]"
    for words in (
        ("attack=bim_010", "attack.targeted=true"),
        ("attack=selective_pgd", "threat=white_box"),
        ("attack=fgsm_010",),
        ("attack=bim_010", "threat=transfer"),
    ):
        assert not planned(figures, *words).measured, words
    assert [one.node.kind for one in planned(figures, "attack=bim_010").measured] == ["walk"]


def test_only_kernels_over_stored_layers_have_bandwidths() -> None:
    figures = ("report.figures=[bandwidths]", "attack=fgsm_010")
    assert not planned(*figures, "detector=msp").measured
    assert not planned(*figures, "detector.layer=backbone.stage2").measured
    assert len(planned(*figures, "detector=kde,kde_logits").measured) == 2


def made(folder: Path, files: dict[str, Any]) -> Any:
    """Every node's artifact: the same files."""
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    found = SimpleNamespace(
        file=lambda name: folder / name, json=lambda name: json.loads((folder / name).read_text())
    )
    return lambda _node: found


MEAN = {"value": 1.0, "low": 0.5, "high": 1.5, "n": 60}


def test_panels_are_told_apart_where_a_study_has_several_settings(tmp_path: Path) -> None:
    opened = made(
        tmp_path,
        {
            "walk.json": {name: [MEAN, MEAN] for name in ("embedding", "input", "fooled")},
            "bandwidths.json": {"bandwidth": 1.0, "points": [{"factor": 1.0, "bandwidth": 1.0, "auc": MEAN}]},
        },
    )
    words = ("defense=ce,pdm", "attack=bim_010")
    plan = planned(*words, "budget=smoke,cpu", "report.figures=[walk]")
    (figure,) = measured_figures.walk(plan, opened)
    assert {panel["title"].split(":")[0].rpartition(", ")[2] for panel in figure.panels} == {
        "budget smoke",
        "budget cpu",
    }
    assert [series["label"] for series in figure.panels[0]["series"]] == ["CE", "PDM"]
    plan = planned(*words, "detector.bandwidth=validation,loo", "report.figures=[bandwidths]")
    (figure,) = measured_figures.bandwidths(plan, opened)
    assert len(figure.panels) == 2 and all(len(panel["series"]) == 2 for panel in figure.panels)
    assert {panel["x_label"] for panel in figure.panels} == {
        "bandwidth / that of the rule (validation)",
        "bandwidth / that of the rule (loo)",
    }


def test_rows_tell_of_caps_and_collapse(tmp_path: Path) -> None:
    plan = planned("defense=ce", "attack=min_norm_l2", "report.tables=[bound]")
    opened = made(
        tmp_path,
        {
            "bound.json": {"bound": MEAN, "images": {"measured": 200, "of": 540}},
            "rank.json": {"bound_rank": MEAN},
        },
    )
    (entry,) = plan.entries
    notes = {entry.nodes["clean"].key: "collapsed", entry.nodes["score"].key: "capped: 110 of 540; collapsed"}
    rows = list(measure.rows(plan.measured, opened, lambda _node: "missing", lambda _c: "validation", notes))
    assert [(row.metric, row.attack, row.detector, row.note) for row in rows] == [
        ("bound", "none", "", "measured on 200 of 540 test images; collapsed"),
        ("bound_rank", "min_norm_l2", "kde", "capped: 110 of 540; collapsed"),
    ]
    gone = list(
        measure.rows(plan.measured, lambda _n: None, lambda _n: "failed", lambda _c: "validation", {})
    )
    assert {(row.metric, row.status) for row in gone} == {("bound", "failed"), ("bound_rank", "failed")}
