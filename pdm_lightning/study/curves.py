"""The data of the figures that show curves: against an attack's eps, and against the distance that it needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pdm_lightning.report import formats
from pdm_lightning.report.results import Figure
from pdm_lightning.report.rows import Row
from pdm_lightning.stages.survival import Distances, needed, survival
from pdm_lightning.store import Artifact
from pdm_lightning.study.measure import minimises_l2
from pdm_lightning.study.plan import Entry, Node
from pdm_lightning.threat import lengths

Open = Callable[[Node], Artifact | None]
Answers = list[tuple[Entry, list[Row]]]

ACCURACY = "robust_accuracy"
REJECTION = (
    "With rejection: the share of all images tried whose clean version is classified correctly and not flagged, and "
    "whose adversarial version is flagged or classified correctly."
)
AUCS = ("auc", "auc_all")
EPS = "attack.eps"
LENGTHENED = ("misclassified_rate", "l2_mean")
Y_LABELS = {
    ACCURACY: "accuracy",
    "auc": "AUC, paired rule",
    "auc_all": "AUC, failures kept",
    "misclassified_rate": "share misclassified",
    "l2_mean": "mean L2 distance",
}
#: Distances at which a curve over distances is drawn.
STEPS = 26


def several_seeds(entries: Iterable[Entry]) -> bool:
    """Whether panels have to name their seed."""
    return len({entry.cell.config["seed"] for entry in entries}) > 1


def place(entry: Entry, seeds: bool, *groups: str) -> str:
    """Data, model and what else tells panels apart; the seed where the study has several."""
    named = [f"seed {entry.cell.config['seed']}"] if seeds else []
    return ", ".join([*(entry.cell.label(group) for group in ("data", "model", *groups)), *named])


def curves(answers: Answers) -> list[Figure]:
    """Accuracy under attack against eps: one panel a data set and attack, one curve a defence and seed.

    Where a study goes beyond the gray box and sweeps eps, accuracy with rejection as well, one panel a threshold.
    """
    beyond = any(row.threat not in ("", "gray_box") for _, rows in answers for row in rows)
    panels = _against(_eps, answers, lambda metric: _drawn(metric, beyond))
    # where nothing was swept, a point is better than no figure
    kept = [panel for panel in panels if panel.swept] or [p for p in panels if p.axes["metric"] == ACCURACY]
    # accuracy first, then each threshold
    kept.sort(key=lambda panel: str(panel.axes["metric"]))
    shown = [row for panel in kept for row in panel.rows]
    notes = sorted({row.note for row in shown if row.note})
    parts = ["Shaded: 95 % Wilson intervals.", *(f"{note[0].upper()}{note[1:]}." for note in notes)]
    parts += [REJECTION] if any(row.metric != ACCURACY for row in shown) else []
    drawn = [panel.drawn() for panel in kept]
    return [Figure("curves", "curves", "Accuracy under attack", " ".join(parts), drawn)]


def auc_curves(answers: Answers) -> list[Figure]:
    """AUC against eps, by both rules: one panel a data set, attack and rule, one curve a defence and seed."""
    panels = [panel for panel in _against(_eps, answers, AUCS.__contains__) if panel.swept]
    caption = (
        "How well the detector tells the attacked images from their originals. Paired rule: of the images that the "
        "attack fooled, where they are enough; failures kept: of all that were attacked. Shaded: 95 % bootstrap "
        "intervals."
    )
    return [Figure("auc_eps", "curves", "AUC against eps", caption, [panel.drawn() for panel in panels])]


def convergence(answers: Answers) -> list[Figure]:
    """Success and distance against the length of an attack: is it as strong as it gets?

    One panel a data set, attack and measure, one curve a defence and seed.
    """
    panels = [panel for panel in _against(_length, answers, LENGTHENED.__contains__) if panel.swept]
    caption = (
        "What an attack reaches with more iterations. Where a curve still rises, or distances still fall, the attack "
        "is cut short, and what withstands it shows that and no more. Distances are means over successes, which are "
        "other images at each length. Shaded: 95 % intervals, Wilson for shares and bootstrap for distances."
    )
    drawn = [panel.drawn() | {"x_log": True} for panel in panels]
    return [Figure("convergence", "curves", "Success against iterations", caption, drawn)]


@dataclass
class _Panel:
    """Rows by curve and place on the x axis."""

    axes: dict[str, Any]
    points: dict[str, dict[float, Row]] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        return [row for curve in self.points.values() for row in curve.values()]

    @property
    def swept(self) -> bool:
        return len({x for curve in self.points.values() for x in curve}) > 1

    def drawn(self) -> dict[str, Any]:
        axes = {key: value for key, value in self.axes.items() if key != "metric"}
        return axes | {"series": [line(label, sorted(curve.items())) for label, curve in self.points.items()]}


class _Place(NamedTuple):
    """A place on the x axis, the override that asks for it, and how the axis is called."""

    x: float
    key: str
    label: str


def _eps(entry: Entry) -> _Place | None:
    """An attack's radius."""
    attack = entry.cell.config["attack"]
    norm = str(attack.get("norm", "linf"))
    label = f"eps ({formats.NORMS.get(norm, norm)}, pixel range 1)"
    return None if attack.get("eps") is None else _Place(float(attack["eps"]), EPS, label)


def _length(entry: Entry) -> _Place | None:
    """How many iterations an attack has, as the budget has it."""
    known = lengths(entry.nodes["craft"].spec["attack"]) if "craft" in entry.nodes else {}
    return next(
        (_Place(float(value), f"attack.{name}", name.replace("_", " ")) for name, value in known.items()),
        None,
    )


def _against(
    place: Callable[[Entry], _Place | None], answers: Answers, drawn: Callable[[str], bool]
) -> list[_Panel]:
    """Rows of attacks that have a place on the x axis, of the metrics that are drawn."""
    panels: dict[str, _Panel] = {}
    names = Names(answers)
    for entry, rows in answers:
        found = place(entry)
        for row in rows if found is not None else ():
            if found is None or row.value is None or row.attack == "none" or not drawn(row.metric):
                continue
            title = names.panel(entry, row, found.key)
            panel = panels.setdefault(title, _Panel(_axes(title, found.label, row)))
            # what follows at the same place is the same attack beside another detector
            panel.points.setdefault(entry.cell.label("defense"), {}).setdefault(found.x, row)
    return list(panels.values())


def rejection(answers: Answers, opened: Open) -> list[Figure]:
    """What withstands minimum-norm attacks against the distance allowed: one panel a data set, attack and threshold."""
    panels: dict[str, dict[str, Any]] = {}
    names = Names(answers)
    for entry, rows in answers:
        if not minimises_l2(entry) or "score" not in entry.nodes:
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


class Names:
    """Titles of panels: they name seed, threat, detector and bandwidth only where the study has several.

    Parameters
    ----------
    answers : list of (Entry, list of Row)
        The cells that are drawn.
    seeds : bool
        Whether a panel holds one seed, and may have to name it.
    """

    def __init__(self, answers: Answers, *, seeds: bool = True) -> None:
        attacked = [row for _, rows in answers for row in rows if row.attack != "none"]
        self.seeds = seeds and several_seeds(entry for entry, _ in answers)
        self.threats = {row.threat for row in attacked}
        self.detectors = {(row.detector, row.bandwidth) for row in attacked}

    def panel(self, entry: Entry, row: Row, axis: str = "") -> str:
        """The title of the panel that shows `row`: of the attack's overrides it leaves out that of the x axis."""
        attack = entry.cell.without(axis).label("attack")
        return ", ".join([place(entry, self.seeds), attack, *self._details(entry, row)])

    def _details(self, entry: Entry, row: Row) -> Iterator[str]:
        if len(self.threats) > 1:
            yield entry.cell.label("threat").replace("_", " ")
        at = formats.at_threshold(row.metric)
        # without a threshold, a detector matters only to an attack that knows it
        if len(self.detectors) > 1 and (at or row.threat != "gray_box" or row.metric in AUCS):
            yield f"{entry.cell.label('detector')} {row.bandwidth}".strip()
        yield f"budget {entry.cell.name('budget')}"
        if at:
            yield formats.false_positives(at[1])
        if row.metric in (*AUCS, *LENGTHENED):
            yield Y_LABELS[row.metric].removeprefix("AUC, ")


def _drawn(metric: str, beyond: bool) -> bool:
    at = formats.at_threshold(metric)
    return metric == ACCURACY or (beyond and at is not None and at[0] == ACCURACY)


def _axes(title: str, x_label: str, row: Row) -> dict[str, Any]:
    y_label = Y_LABELS.get(row.metric, "accuracy with rejection")
    return {"metric": row.metric, "title": title, "x_label": x_label, "y_label": y_label}


def line(label: str, points: Iterable[tuple[float, Row]]) -> dict[str, Any]:
    """A curve through (x, row), in this order, with its intervals where all rows have one."""
    xs, rows = zip(*points, strict=True)
    bounds = {"low": [row.ci_low for row in rows], "high": [row.ci_high for row in rows]}
    known = all(value is not None for values in bounds.values() for value in values)
    return {
        "label": label,
        "x": list(xs),
        "y": [row.value for row in rows],
        **(bounds if known else {}),
    }


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
