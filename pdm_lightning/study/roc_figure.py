"""ROC curves of the detectors: one panel a data set, model, attack, threat and detector, one curve a defence."""

from __future__ import annotations

from typing import Any

import numpy as np
from safetensors.numpy import load_file

from pdm_lightning.report import formats
from pdm_lightning.report.results import Figure
from pdm_lightning.report.rows import Row
from pdm_lightning.store import Artifact
from pdm_lightning.study.curves import Answers, Open
from pdm_lightning.study.exhibits import roc
from pdm_lightning.study.plan import Entry

#: More panels than these nobody compares.
MOST_PANELS = 16
#: More corners than a curve has on the paper's test sets, but for the largest.
MOST_POINTS = 2000
#: Where every area is above this, the curves differ at small rates alone, which a logarithmic axis shows.
CROWDED = 0.9
CAPTION = (
    "ROC curves of telling adversarial from clean images, on the pairs of the paired rule: the area under each is the "
    "AUC that stands with the defence. Where all areas of a panel are above .9, its axis of false-positive rates is "
    "logarithmic."
)


def roc_curves(answers: Answers, opened: Open) -> list[Figure]:
    """The curves whose area the study gives as ``auc``; of several seeds, the first.

    Where there are more than `MOST_PANELS` panels, the first are drawn, and the caption says so.
    """
    panels: dict[str, dict[str, Any]] = {}
    drawn: set[tuple[str, str]] = set()
    titles: set[str] = set()
    rates: set[float] = set()
    scored = [(entry, row) for entry, rows in answers for row in rows if row.metric == "auc"]
    several = _several(scored)
    for entry, row in scored:
        title = _title(entry, row, several)
        curve = (title, entry.cell.name("defense"))
        artifact = opened(entry.nodes["score"]) if row.value is not None and curve not in drawn else None
        if artifact is None:
            continue
        drawn.add(curve)
        titles.add(title)
        if title not in panels and len(panels) == MOST_PANELS:
            continue
        panel = panels.setdefault(title, {"title": title, **_AXES, "series": [], "areas": []})
        series, found = _series(entry, row, artifact)
        panel["series"].append(series)
        panel["areas"].append(row.value)
        rates |= found
    made = []
    for panel in panels.values():
        lowest = min(panel.pop("areas"))
        made.append(panel | {"x_log": True} if lowest > CROWDED else panel)
    return [Figure("roc", "curves", "ROC curves", _caption(rates, len(made), len(titles)), made)]


_AXES = {"x_label": "false-positive rate", "y_label": "true-positive rate"}


def _several(scored: list[tuple[Entry, Row]]) -> set[str]:
    """What the study has several of, and titles have to name."""
    found: dict[str, set[Any]] = {
        "detector": {(row.detector, row.bandwidth) for _, row in scored},
        "budget": {row.budget for _, row in scored},
    }
    return {name for name, values in found.items() if len(values) > 1}


def _title(entry: Entry, row: Row, several: set[str]) -> str:
    """What tells panels apart; the seed is no part of it."""
    parts = [entry.cell.label(group) for group in ("data", "model", "attack")]
    parts.append(entry.cell.label("threat").replace("_", " "))
    if "detector" in several:
        parts.append(f"{entry.cell.label('detector')} {row.bandwidth}".strip())
    if "budget" in several:
        parts.append(f"budget {row.budget}")
    return ", ".join(parts)


def _series(entry: Entry, row: Row, artifact: Artifact) -> tuple[dict[str, Any], set[float]]:
    scores = load_file(artifact.file("scores.safetensors"))
    fooled = scores["fooled"].astype(bool)
    clean, adversarial = scores["clean"][fooled], scores["adversarial"][fooled]
    label = f"{entry.cell.label('defense')}, AUC {formats.fraction(float(row.value or 0.0))}"
    curve = roc(label, clean, adversarial, MOST_POINTS)
    limits = {
        float(rate): limit
        for rate, limit in artifact.json("score.json")["thresholds"].items()
        if limit is not None
    }
    marks = [
        (float(np.mean(clean > limit)), float(np.mean(adversarial > limit))) for limit in limits.values()
    ]
    return {"label": label, "x": curve.x, "y": curve.y, "marks": marks}, set(limits)


def _caption(rates: set[float], drawn: int, known: int) -> str:
    parts = [CAPTION]
    if rates:
        told = formats.words([formats.false_positives(rate) for rate in sorted(rates)])
        parts.append(
            f"Marked: the operating points at the thresholds frozen on clean validation images for {told}."
        )
    if drawn < known:
        parts.append(f"{drawn} of {known} panels are drawn, the first ones; results.csv has every area.")
    return " ".join(parts)
