"""What a term's weight does to a training: accuracy and the geometry of the classes against it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from pdm_lightning.report import formats
from pdm_lightning.report.cells import split_note
from pdm_lightning.report.results import Figure
from pdm_lightning.report.rows import Row
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.curves import Answers, place

METRICS = ("accuracy", "class_cosine", "dbi")
"""What is drawn: a panel each."""
_WEIGHT = re.compile(r"\+*defense\.term\.(\w+)\.weight=")
CAPTION = (
    "Trainings that differ in one weight alone. Lines: means over seeds; shaded: from the lowest to the highest of "
    "them. A mean cosine of 1 between the classes' means is a collapse: all classes lie in one direction."
)
COLLAPSED = "collapsed"
_RINGS = "Ring: a seed whose classes collapsed."
_CROSSES = (
    "Cross at the bottom: a seed without a value, for its training failed (or for what the legend says); the line "
    "breaks there, and a point is the mean of the seeds left."
)

#: By curve, weight and seed.
Curves = dict[str, dict[float, dict[int, Row]]]
#: By place, term and measure.
Panels = dict[tuple[str, str, str], Curves]


def weights(answers: Answers) -> list[Figure]:
    """One panel a data set, model, term and measure, and a budget where the study has several; one curve a defence."""
    apart = ["budget"] if len({entry.cell.name("budget") for entry, _ in answers}) > 1 else []
    panels: Panels = {}
    for entry, rows in answers:
        for term, curve in _curves(entry.cell):
            at = float(entry.cell.config["defense"]["term"][term]["weight"])
            for metric, row in _measured(rows):
                panel = panels.setdefault((place(entry, False, *apart), term, metric), {})
                seeds = panel.setdefault(curve, defaultdict(dict))[at]
                if row.status == "ok" or row.seed not in seeds:
                    seeds[row.seed] = row
    panels = _lines({key: curves for key, curves in panels.items() if _swept(curves)})
    made = [
        _panel(where, term, metric, panels[where, term, metric])
        for where, term in dict.fromkeys(key[:2] for key in panels)
        for metric in METRICS
        if (where, term, metric) in panels
    ]
    signs = {word for panel in made for series in panel["series"] for word in series.get("signs", ())}
    told = [CAPTION, *([_RINGS] if COLLAPSED in signs else []), *([_CROSSES] if signs - {COLLAPSED} else [])]
    return [Figure("weights", "curves", "What a term's weight does", " ".join(told), made)]


def _measured(rows: list[Row]) -> Iterator[tuple[str, Row]]:
    """What is drawn of clean images; a training that left nothing has one row, which stands for all measures."""
    for row in rows:
        if row.attack == "none" and row.metric in METRICS:
            for metric in (row.metric,) if row.status in ("ok", "n/a") else METRICS:
                yield metric, row


def _swept(curves: Curves) -> bool:
    """Whether one curve has several weights, and there is a value at one of them."""
    lines = any(len(curve) > 1 for curve in curves.values())
    return lines and any(row.value is not None for curve in curves.values() for row in _rows(curve))


def _lines(panels: Panels) -> Panels:
    """Without curves of one point whose trainings are on a line of another term's panel: that weight was varied."""
    curves = [curve for found in panels.values() for curve in found.values() if len(curve) > 1]
    lined = {id(row) for curve in curves for row in _rows(curve)}
    return {
        key: {
            label: curve
            for label, curve in found.items()
            if len(curve) > 1 or any(id(row) not in lined for row in _rows(curve))
        }
        for key, found in panels.items()
    }


def _rows(curve: dict[float, dict[int, Row]]) -> list[Row]:
    return [row for seeds in curve.values() for row in seeds.values()]


def _curves(cell: Cell) -> Iterator[tuple[str, str]]:
    """Each term whose weight was asked for, with what the cell is called without it."""
    for override in cell.overrides:
        found = _WEIGHT.match(override)
        if found is None or found[1] not in cell.config["defense"]["use"]:
            continue
        yield found[1], cell.without(f"defense.term.{found[1]}.weight").label("defense")


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


def _series(label: str, points: dict[float, dict[int, Row]], scale: int) -> dict[str, Any]:
    places: list[float] = []
    values: list[list[float]] = []
    signs: dict[str, list[tuple[float, float | None]]] = {}
    for x in sorted(points):
        rows = points[x].values()
        found = [scale * row.value for row in rows if row.value is not None]
        # those that are left are no mean over the seeds: no line leads to them, nor over their place
        stretch = [found] if len(found) == len(rows) else [[], found, []]
        places += [x] * len(stretch)
        values += stretch
        for row in rows:
            if row.value is None:
                signs.setdefault(row.status, []).append((x, None))
            elif COLLAPSED in split_note(row.note):
                signs.setdefault(COLLAPSED, []).append((x, scale * row.value))
    bounds = {
        "low": [min(found, default=None) for found in values],
        "high": [max(found, default=None) for found in values],
    }
    several = any(len(found) > 1 for found in values)
    return {
        "label": label,
        "x": places,
        "y": [fmean(found) if found else None for found in values],
        **(bounds if several else {}),
        **({"signs": signs} if signs else {}),
    }
