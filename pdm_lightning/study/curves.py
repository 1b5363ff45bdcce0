"""The data of the figures that show curves: against an attack's eps, and against the distance that it needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pdm_lightning.report import formats
from pdm_lightning.report.results import Figure, Row
from pdm_lightning.stages.survival import Distances, needed, survival
from pdm_lightning.store import Artifact
from pdm_lightning.study.plan import Entry, Node

Open = Callable[[Node], Artifact | None]
Answers = list[tuple[Entry, list[Row]]]

ACCURACY = "robust_accuracy"
REJECTION = (
    "With rejection: the share of all images tried whose clean version is classified correctly and not flagged, and "
    "whose adversarial version is flagged or classified correctly."
)
#: Distances at which a curve over distances is drawn.
STEPS = 26
# It keeps L0 small, and has neither a radius nor a norm to say so.
_OTHER_NORM = {"attacks.JSMA"}


def place(entry: Entry, *groups: str) -> str:
    """Data, model and what else tells panels apart; the seed where it is not the plain one."""
    seed = entry.cell.config["seed"]
    seeds = [f"seed {seed}"] if seed else []
    return ", ".join([*(entry.cell.label(group) for group in ("data", "model", *groups)), *seeds])


def curves(answers: Answers) -> list[Figure]:
    """Accuracy under attack against eps: one panel a data set and attack, one curve a defence and seed.

    Where a study goes beyond the gray box and sweeps eps, accuracy with rejection as well, one panel a threshold.
    """
    panels: dict[str, dict[str, Any]] = {}
    points: dict[str, dict[str, dict[float, Row]]] = {}
    beyond = any(row.threat not in ("", "gray_box") for _, rows in answers for row in rows)
    names = _Names(answers)
    for entry, rows in answers:
        eps = entry.cell.config["attack"].get("eps")
        for row in rows if eps is not None else ():
            if row.value is None or not _drawn(row.metric, beyond):
                continue
            title = names.panel(entry, row)
            panels.setdefault(title, _axes(title, entry, row))
            curve = points.setdefault(title, {}).setdefault(entry.cell.label("defense"), {})
            curve.setdefault(float(eps), row)
    swept = [title for title in panels if _swept(points[title])]
    # where nothing was swept, a point is better than no figure
    kept = swept or [title for title in panels if panels[title]["metric"] == ACCURACY]
    # accuracy first, then each threshold
    kept.sort(key=lambda title: panels[title]["metric"])
    made = [
        {key: value for key, value in panels[title].items() if key != "metric"}
        | {"series": [_curve(label, curve) for label, curve in points[title].items()]}
        for title in kept
    ]
    shown = [row for title in kept for curve in points[title].values() for row in curve.values()]
    notes = sorted({row.note for row in shown if row.note})
    parts = ["Shaded: 95 % Wilson intervals.", *(f"{note[0].upper()}{note[1:]}." for note in notes)]
    parts += [REJECTION] if any(row.metric != ACCURACY for row in shown) else []
    return [Figure("curves", "curves", "Accuracy under attack", " ".join(parts), made)]


def rejection(answers: Answers, opened: Open) -> list[Figure]:
    """What withstands minimum-norm attacks against the distance allowed: one panel a data set, attack and threshold."""
    panels: dict[str, dict[str, Any]] = {}
    names = _Names(answers)
    for entry, rows in answers:
        if not _minimises_l2(entry) or "score" not in entry.nodes:
            continue
        artifact = opened(entry.nodes["score"])
        for row in rows:
            at = formats.at_threshold(row.metric)
            if artifact is None or at is None or at[0] != "joint_success" or row.value is None:
                continue
            title = names.panel(entry, row)
            panel = panels.setdefault(title, {"title": title, **_REJECTION_AXES, "hits": {}})
            panel["hits"][entry.cell.label("defense")] = needed(artifact, row.metric.partition("@")[2])
    made = [_distance_panel(panel) for panel in panels.values()]
    caption = (
        "Share of the attacked images (those classified correctly) without a joint success, misclassified and not "
        "flagged, within the distance. A stronger attack can only lower it. Shaded: 95 % Wilson intervals."
    )
    return [Figure("rejection", "curves", "What withstands minimum-norm attacks", caption, made)]


_REJECTION_AXES = {"x_label": "L2 distance (pixel range 1)", "y_label": "share that withstands"}


class _Names:
    """Titles of panels: they name threat, detector and bandwidth only where the study has several."""

    def __init__(self, answers: Answers) -> None:
        attacked = [row for _, rows in answers for row in rows if row.attack != "none"]
        self.threats = {row.threat for row in attacked}
        self.detectors = {(row.detector, row.bandwidth) for row in attacked}

    def panel(self, entry: Entry, row: Row) -> str:
        """The title of the panel that shows `row`."""
        attack = entry.cell.config["attack"]
        return ", ".join([place(entry), attack.get("label") or attack["name"], *self._details(entry, row)])

    def _details(self, entry: Entry, row: Row) -> Iterator[str]:
        if len(self.threats) > 1:
            yield entry.cell.label("threat").replace("_", " ")
        at = formats.at_threshold(row.metric)
        # without a threshold, a detector matters only to an attack that knows it
        if len(self.detectors) > 1 and (at or row.threat != "gray_box"):
            yield f"{entry.cell.label('detector')} {row.bandwidth}".strip()
        yield f"budget {entry.cell.name('budget')}"
        if at:
            yield formats.false_positives(at[1])


def _drawn(metric: str, beyond: bool) -> bool:
    at = formats.at_threshold(metric)
    return metric == ACCURACY or (beyond and at is not None and at[0] == ACCURACY)


def _axes(title: str, entry: Entry, row: Row) -> dict[str, Any]:
    norm = str(entry.cell.config["attack"].get("norm", "linf"))
    return {
        "metric": row.metric,
        "title": title,
        "x_label": f"eps ({formats.NORMS.get(norm, norm)}, pixel range 1)",
        "y_label": "accuracy" if row.metric == ACCURACY else "accuracy with rejection",
    }


def _swept(series: dict[str, dict[float, Row]]) -> bool:
    return len({eps for curve in series.values() for eps in curve}) > 1


def _curve(label: str, points: dict[float, Row]) -> dict[str, Any]:
    rows = [points[eps] for eps in sorted(points)]
    return {
        "label": label,
        "x": sorted(points),
        "y": [row.value for row in rows],
        "low": [row.ci_low for row in rows],
        "high": [row.ci_high for row in rows],
    }


def _minimises_l2(entry: Entry) -> bool:
    attack = entry.cell.config["attack"]
    return (
        attack.get("eps") is None
        and attack.get("norm", "l2") == "l2"
        and attack.get("_target_") not in _OTHER_NORM
    )


def _distance_panel(panel: dict[str, Any]) -> dict[str, Any]:
    """One curve a defence, all of them up to the largest distance that any success needed."""
    hits: dict[str, Distances] = panel.pop("hits")
    every = np.concatenate(list(hits.values()))
    grid = np.linspace(0, every[np.isfinite(every)].max(initial=0.0), STEPS)
    return panel | {"series": [_survival(label, distances, grid) for label, distances in hits.items()]}


def _survival(label: str, distances: Distances, grid: Distances) -> dict[str, Any]:
    left = survival(distances, grid)
    return {
        "label": label,
        "x": grid.tolist(),
        "y": [share.value for share in left],
        "low": [share.low for share in left],
        "high": [share.high for share in left],
    }
