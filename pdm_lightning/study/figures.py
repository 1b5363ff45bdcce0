"""The data of a report's figures, read from stored artifacts and from the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from pdm_lightning.report.results import Figure, Row
from pdm_lightning.stages import craft
from pdm_lightning.store import Artifact
from pdm_lightning.study.plan import Entry, Node, Plan

Open = Callable[[Node], Artifact | None]
Answers = list[tuple[Entry, list[Row]]]


def figures(plan: Plan, opened: Open, answers: Answers) -> list[Figure]:
    """The figures that the study asks for, as far as their artifacts are there.

    Raises
    ------
    ValueError
        For a figure that does not exist.
    """
    makers = {"tsne": _tsne, "confusion": _confusion, "curves": lambda *_: _curves(answers)}
    made = []
    for name in plan.settings["report"]["figures"]:
        if name not in makers:
            raise ValueError(f"report.figures: {name!r} is unknown: use {', '.join(makers)}")
        made += makers[name](plan, opened)
    return [figure for figure in made if figure.panels]


def _title(entry: Entry, *groups: str) -> str:
    """Data, model and what else tells panels apart, the budget and the seed where they are not the plain ones."""
    seed = entry.cell.config["seed"]
    return ", ".join(
        [
            *(entry.cell.label(group) for group in ("data", "model", *groups)),
            *([f"seed {seed}"] if seed else []),
        ]
    )


def _once(plan: Plan, kind: str) -> list[Entry]:
    """The first entry of each distinct node of a kind."""
    entries = {entry.nodes[kind].key: entry for entry in reversed(plan.entries) if kind in entry.nodes}
    return [
        entry for entry in plan.entries if kind in entry.nodes and entries[entry.nodes[kind].key] is entry
    ]


def _classes(entry: Entry, opened: Open) -> list[str]:
    train = opened(entry.nodes["train"])
    return list(train.json("data.json")["classes"]) if train else []


def _tsne(plan: Plan, opened: Open) -> list[Figure]:
    panels = []
    for entry in _once(plan, "tsne"):
        artifact = opened(entry.nodes["tsne"])
        if artifact is None:
            continue
        arrays, numbers = load_file(artifact.file("tsne.safetensors")), artifact.json("tsne.json")
        panels.append(
            {
                "title": _title(entry, "defense"),
                "points": arrays["points"],
                "labels": arrays["labels"],
                "classes": _classes(entry, opened),
                "dbi": numbers["dbi"],
                "dbi_2d": numbers["dbi_2d"],
            }
        )
    caption = (
        "t-SNE of test embeddings, one colour a class. DBI: Davies-Bouldin index of the embeddings themselves "
        "(lower is better clustered); beside it that of the plotted points."
    )
    return [Figure("tsne", "tsne", "Embeddings", caption, panels)]


def _confusion(plan: Plan, opened: Open) -> list[Figure]:
    panels = []
    for entry in _once(plan, "craft"):
        artifact = opened(entry.nodes["craft"])
        if artifact is None:
            continue
        rows, classes = craft.read(artifact), _classes(entry, opened)
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        fooled = (rows["predicted"] != rows["y"]).numpy()
        np.add.at(counts, (rows["y"].numpy()[fooled], rows["predicted"].numpy()[fooled]), 1)
        panels.append({"title": _title(entry, "defense", "attack"), "counts": counts, "classes": classes})
    caption = "How often an image of a class (row) was taken for another class (column) after the attack."
    return [Figure("confusion", "confusion", "Original against adversarial class", caption, panels)]


def _curves(answers: Answers) -> list[Figure]:
    """Accuracy under attack against eps: one panel a data set and attack, one curve a defence and seed."""
    series: dict[str, dict[str, list[tuple[float, Row]]]] = {}
    for entry, rows in answers:
        config, cell = entry.cell.config, entry.cell
        row = next((r for r in rows if r.metric == "robust_accuracy" and r.value is not None), None)
        if row is None or config["attack"].get("eps") is None:
            continue
        attack = config["attack"].get("label") or config["attack"]["name"]
        panel = f"{_title(entry)}, {attack}, budget {cell.name('budget')}"
        curve = cell.label("defense")
        series.setdefault(panel, {}).setdefault(curve, []).append((float(config["attack"]["eps"]), row))
    panels = [
        {
            "title": title,
            "x_label": "eps (L-inf, pixel range 1)",
            "y_label": "accuracy",
            "series": [_curve(label, points) for label, points in curves.items()],
        }
        for title, curves in series.items()
    ]
    notes = sorted(
        {row.note for points in series.values() for curve in points.values() for _, row in curve if row.note}
    )
    caption = " ".join(
        ["Shaded: 95 % Wilson intervals.", *(f"{note[0].upper()}{note[1:]}." for note in notes)]
    )
    return [Figure("curves", "curves", "Accuracy under attack", caption, panels)]


def _curve(label: str, points: list[tuple[float, Row]]) -> dict[str, Any]:
    points = sorted(points, key=lambda point: point[0])
    return {
        "label": label,
        "x": [eps for eps, _ in points],
        "y": [row.value for _, row in points],
        "low": [row.ci_low for _, row in points],
        "high": [row.ci_high for _, row in points],
    }
