"""Detection against success: a detector's AUC where an attack of growing radius fools so many of the images."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pdm_lightning.report.results import Figure
from pdm_lightning.report.rows import Row
from pdm_lightning.study.curves import EPS, Y_LABELS, Answers, Names, line

CAPTION = (
    "Detection AUC, paired rule, against the share of the attacked images (those classified correctly) that are "
    "fooled: a point for each radius at which they are enough for an AUC, a line for each seed. One radius is a strong "
    "attack on one model and a weak one on another; here models are compared where the attack fools as many."
)
SHADED = " Shaded: 95 % bootstrap intervals."

#: By defence and seed: radius, share fooled, and the AUC there.
Curves = dict[tuple[str, int], list[tuple[float, float, Row]]]


def success(answers: Answers) -> list[Figure]:
    """One panel a data set and attack that ran at several radii, one curve a defence and seed."""
    names = Names(answers, seeds=False)
    panels: dict[str, Curves] = defaultdict(lambda: defaultdict(list))
    for entry, rows in answers:
        eps = entry.cell.config["attack"].get("eps")
        fooled = next((row.value for row in rows if row.metric == "misclassified_rate"), None)
        for row in rows:
            if row.metric == "auc" and row.value is not None and eps is not None and fooled is not None:
                curve = panels[names.panel(entry, row, EPS)][entry.cell.label("defense"), row.seed]
                curve.append((float(eps), fooled, row))
    kept = {
        title: curves for title, curves in panels.items() if any(len(curve) > 1 for curve in curves.values())
    }
    several = any(len({seed for _, seed in curves}) > 1 for curves in kept.values())
    made = [_panel(title, curves, several) for title, curves in kept.items()]
    return [
        Figure("auc_success", "curves", "AUC against success", CAPTION + ("" if several else SHADED), made)
    ]


def _panel(title: str, curves: Curves, several: bool) -> dict[str, Any]:
    return {
        "title": title,
        "x_label": "share of the images fooled",
        "y_label": Y_LABELS["auc"],
        "series": [_series(label, seed, curve, several) for (label, seed), curve in curves.items()],
    }


def _series(label: str, seed: int, curve: list[tuple[float, float, Row]], several: bool) -> dict[str, Any]:
    drawn = line(label, [(share, row) for _, share, row in sorted(curve, key=lambda point: point[0])])
    if several:
        return {key: drawn[key] for key in ("label", "x", "y")} | {"name": f"{label}, seed {seed}"}
    return drawn
