"""What a study measured on one data set, with one model and budget, in the words of the paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pdm_lightning.claims.found import Found, Of, estimates, quotient
from pdm_lightning.report import formats
from pdm_lightning.report.cells import CLEAN, Block, Measure, aggregate, split_note
from pdm_lightning.report.published import published
from pdm_lightning.report.rows import Row
from pdm_lightning.report.white_box_tables import COMPLETE

#: Metrics that come from the detector; the paper's is the kernel density at one bandwidth.
DETECTED = ("auc", "auc_proxy", "auc_transferred", "distortion")
#: Means over an attack's successes: of too few of the images they leave out those that need most.
OF_SUCCESSES = ("distortion", "l2_mean")
#: The AUC from which on the paper calls detection breached, which its white-box distortions are measured under.
BREACHED = 0.5
#: How a part tells what the paper calls one of its models, where the study has no label of its own.
ROLES = {
    "base": "baseline",
    "rce": "RCE",
    "rvl": "RVL",
    "siamese": "Siamese",
    "siamese_rvl": "Siamese+RVL",
    "pdm": "PDM",
}
_EPS = re.compile(r"(?P<family>\w+)\[eps=(?P<eps>[0-9.e-]+)\]")


class Place:
    """The rows of one data set, model and budget.

    Parameters
    ----------
    rows : iterable of Row
        All of one data set, model and budget.
    labels : mapping of str to mapping
        As in `StudyResult.labels`.
    """

    def __init__(self, rows: Iterable[Row], labels: Mapping[str, Mapping[str, str]]) -> None:
        self.rows, self.labels = list(rows), labels
        self.data, self.model, self.budget = _first(self.rows)
        self._cells: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.rows:
            self._cells.setdefault((row.metric, row.defense, row.attack), []).append(row)
        self._defenses = {row.defense for row in self.rows}
        self._seeds = {row.seed for row in self.rows}
        self._collapsed = {(row.defense, row.seed) for row in self.rows if _collapsed(row)}
        self._swept = {
            (hit["family"], float(hit["eps"])): hit[0]
            for name in dict.fromkeys(row.attack for row in self.rows)
            if (hit := _EPS.fullmatch(name))
        }
        self._settings: dict[tuple[str, bool], tuple[str, str, str | float] | None] = {}

    def label(self, column: str, name: str) -> str:
        """The study's label of a name, or the name."""
        return self.labels.get(column, {}).get(name, name)

    def title(self, model: str) -> str:
        """The label of the defence that stands for one of the paper's models."""
        return self.labels.get("defense", {}).get(self.defense(model), ROLES[model])

    def defense(self, model: str) -> str:
        """The study's defence that stands for one of the paper's models: the first of its readings; may be empty."""
        readings = [name for name, role in published()["defenses"].items() if role == model]
        return next((name for name in readings if name in self._defenses), "")

    def find(self, of: Of) -> Found:
        """Look up.

        A mean over too few successes is no value, nor is a white-box distortion at which detection still works.
        """
        if "/" in of.metric:
            top, bottom = (self.find(replace(of, metric=metric)) for metric in of.metric.split("/"))
            return quotient(top, bottom)
        measured, rows = self._measure(of)
        if not rows or (measured.value is None and measured.status != "n/a"):
            return Found(gap=measured.status, missing=True)
        if measured.value is None:
            return Found(gap="n/a", n=measured.n)
        good = list({row.seed: row for row in rows if row.status == "ok" and row.value is not None}.values())
        marks = self._marks(of, measured, good)
        gap = self._gap(of, measured.value, marks)
        if gap:
            return Found(gap=gap, n=measured.n)
        both, images = estimates(of.metric, measured, good)
        seeds = {row.seed: float(row.value) for row in good if row.value is not None}
        collapsed = tuple(sorted(row.seed for row in good if (row.defense, row.seed) in self._collapsed))
        return Found(both, images, n=measured.n, seeds=seeds, collapsed=collapsed, marks=marks)

    def _gap(self, of: Of, value: float, marks: Mapping[str, str]) -> str:
        """What makes a value none; empty for a value."""
        if of.metric not in OF_SUCCESSES:
            return ""
        success = self._measure(replace(of, metric="success_rate"))[0].value
        if success is not None and success < COMPLETE:
            return f"censored, {formats.small(value)} over the {formats.rate(success)} that fell"
        if of.metric == "distortion" and of.threat == "white_box":
            auc = self.find(replace(of, metric="auc")).estimate
            if auc is not None and auc.low is not None and auc.low > BREACHED:
                return f"{formats.small(value)} with detection not breached, AUC {marks['AUC']}"
        return ""

    def _marks(self, of: Of, measured: Measure, rows: Sequence[Row]) -> dict[str, str]:
        marks = {}
        if of.metric == "distortion":
            auc = self.find(replace(of, metric="auc")).estimate
            if auc is not None:
                ends = () if auc.low is None or auc.high is None else (auc.low, auc.high)
                told = f" [{', '.join(map(formats.fraction, ends))}]" if ends else ""
                marks["AUC"] = formats.fraction(auc.value) + told
        if measured.seeds_ok < len(self._seeds):
            marks["seeds"] = f"{measured.seeds_ok} of {len(self._seeds)}"
        if any(note.startswith("capped") for note in measured.notes):
            marks["capped"] = ""
        if of.metric in DETECTED and (setting := self._setting(of)) and setting[1:] != ("kde", "validation"):
            marks["detector"] = " ".join(str(part) for part in setting[1:] if part != "")
        return marks

    def layers(self, metric: str) -> list[str]:
        """The layers that a metric was measured at, as first met: ``stem`` of ``gradient_train:stem``."""
        names = dict.fromkeys(row.metric.partition(":") for row in self.rows)
        return [layer for name, _, layer in names if name == metric and layer]

    def radii(self, family: str) -> list[float]:
        """The radii above 0 at which an attack was swept, ascending."""
        return sorted({eps for known, eps in self._swept if known == family} - {0.0})

    def at(self, of: Of, eps: float) -> Of:
        """The same under the attack of that family at one of its `radii`."""
        return Of(of.metric, of.model, self._swept[of.attack, eps], of.threat)

    def _measure(self, of: Of) -> tuple[Measure, list[Row]]:
        rows = self._cells.get((of.metric, self.defense(of.model), of.attack), [])
        if of.attack != CLEAN:
            rows = self._set(rows, of)
        return aggregate(rows), rows

    def _set(self, rows: list[Row], of: Of) -> list[Row]:
        """Those of the one threat variant, detector and bandwidth that all of the place's comparisons use."""
        setting = self._setting(of)
        return [] if setting is None else [row for row in rows if _fits(row, setting)]

    def _setting(self, of: Of) -> tuple[str, str, str | float] | None:
        key = of.threat, of.metric in DETECTED
        if key not in self._settings:
            self._settings[key] = _setting(self.rows, *key)
        return self._settings[key]


def places(rows: Sequence[Row], labels: Mapping[str, Mapping[str, str]]) -> list[Place]:
    """A place for every data set, model and budget, as first met."""
    apart: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        apart.setdefault((row.data, row.model, row.budget), []).append(row)
    return [Place(own, labels) for own in apart.values()]


def _first(rows: list[Row]) -> tuple[str, str, str]:
    return (rows[0].data, rows[0].model, rows[0].budget) if rows else ("", "", "")


def _setting(rows: list[Row], threat: str, detected: bool) -> tuple[str, str, str | float] | None:
    """The plain threat model, the paper's detector and the validation rule where they are there, else the nearest.

    Rows without a detector belong to every setting, and make one only where nothing was scored.
    """
    known = list(
        dict.fromkeys(
            (row.threat, row.detector, row.bandwidth)
            for row in rows
            if row.attack != CLEAN and row.threat.partition("[")[0] == threat
        )
    )
    ranked = sorted(
        [one for one in known if one[1]] or known,
        key=lambda one: (not _plain(one), one[0] != threat, one[2] != "validation"),
    )
    return next((one for one in ranked if _plain(one) or not detected), None)


def _fits(row: Row, setting: tuple[str, str, str | float]) -> bool:
    """Whether a row belongs to a setting; what it leaves empty holds for all."""
    own = (row.threat, row.detector, row.bandwidth)
    return all(value in ("", chosen) for value, chosen in zip(own, setting, strict=True))


def _plain(setting: tuple[str, str, str | float]) -> bool:
    """Whether it is the kernel density of the embedding, at a bandwidth that is not scaled."""
    name, _, options = setting[1].removesuffix("]").partition("[")
    own = all(option.startswith("bandwidth") for option in options.split(",") if option)
    return name in ("kde", "") and own and Block(bandwidth=setting[2]).scale == 1


def _collapsed(row: Row) -> bool:
    return "collapsed" in split_note(row.note) or (row.metric == "collapsed" and bool(row.value))
