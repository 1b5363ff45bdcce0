"""What a term's weight does to a training: accuracy and the geometry of the classes against it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from pdm_lightning.report import formats
from pdm_lightning.report.results import Figure
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.curves import Answers

METRICS = ("accuracy", "class_cosine", "dbi")
"""What is drawn: a panel each."""
_WEIGHT = re.compile(r"\+*defense\.term\.(\w+)\.weight=")
CAPTION = (
    "Trainings that differ in one weight alone. Lines: means over seeds; shaded: from the lowest to the highest of "
    "them. A mean cosine of 1 between the classes' means is a collapse: all classes lie in one direction."
)

#: By curve, weight and seed.
Curves = dict[str, dict[float, dict[int, float]]]


def weights(answers: Answers) -> list[Figure]:
    """One panel a data set, model, term and measure, and a budget where the study has several; one curve a defence."""
    several = len({entry.cell.name("budget") for entry, _ in answers}) > 1
    panels: dict[tuple[str, str, str], Curves] = {}
    for entry, rows in answers:
        for term, curve in _curves(entry.cell):
            at = float(entry.cell.config["defense"]["term"][term]["weight"])
            for row in rows:
                if row.metric in METRICS and row.attack == "none" and row.value is not None:
                    panel = panels.setdefault((_place(entry.cell, several), term, row.metric), {})
                    panel.setdefault(curve, defaultdict(dict))[at][row.seed] = row.value
    made = [
        _panel(place, term, metric, panels[place, term, metric])
        for place, term in dict.fromkeys(key[:2] for key in panels)
        for metric in METRICS
        if len({x for curve in panels.get((place, term, metric), {}).values() for x in curve}) > 1
    ]
    return [Figure("weights", "curves", "What a term's weight does", CAPTION, made)]


def _place(cell: Cell, several: bool) -> str:
    return ", ".join(cell.label(group) for group in ("data", "model", *(["budget"] if several else [])))


def _curves(cell: Cell) -> Iterator[tuple[str, str]]:
    """Each term whose weight was asked for, with what the cell is called without it."""
    for override in cell.overrides:
        found = _WEIGHT.match(override)
        if found is None or found[1] not in cell.config["defense"]["use"]:
            continue
        other = Cell(cell.config, tuple(word for word in cell.overrides if word != override))
        yield found[1], other.label("defense")


def _panel(place: str, term: str, metric: str, curves: Curves) -> dict[str, Any]:
    label = formats.metric_label(metric)
    scale = 100 if label.endswith(", %") else 1
    return {
        "title": f"{place}: {label.removesuffix(', %')}",
        "x_label": f"weight of {term}",
        "y_label": label,
        "x_log": all(x > 0 for curve in curves.values() for x in curve),
        "series": [_series(label, curve, scale) for label, curve in curves.items()],
    }


def _series(label: str, points: dict[float, dict[int, float]], scale: int) -> dict[str, Any]:
    places = sorted(points)
    values = [[scale * value for value in points[x].values()] for x in places]
    bounds = {"low": [min(found) for found in values], "high": [max(found) for found in values]}
    several = any(len(found) > 1 for found in values)
    return {
        "label": label,
        "x": places,
        "y": [fmean(found) for found in values],
        **(bounds if several else {}),
    }
