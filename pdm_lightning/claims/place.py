"""What a study measured on one data set, with one model and budget, in the words of the paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pdm_lightning.claims.intervals import Estimate, from_edge
from pdm_lightning.report import formats
from pdm_lightning.report.cells import CLEAN, Block, Measure, aggregate
from pdm_lightning.report.published import published
from pdm_lightning.report.rows import Row
from pdm_lightning.report.white_box_tables import COMPLETE

#: Metrics that come from the detector; the paper's is the kernel density at one bandwidth.
DETECTED = ("auc", "auc_proxy", "auc_transferred", "distortion")
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


@dataclass(frozen=True)
class Of:
    """What a claim speaks of: a metric of one of the paper's models.

    Attributes
    ----------
    metric : str
        As in `pdm_lightning.report.results.Row`.
    model : str
        The paper's name: ``base``, ``rce``, ``rvl``, ``siamese``, ``siamese_rvl`` or ``pdm``.
    attack, threat : str
        As in ``conf/``; without an attack, what is measured on clean images.
    """

    metric: str
    model: str
    attack: str = CLEAN
    threat: str = "gray_box"


@dataclass(frozen=True)
class Found:
    """What the study has of it: the estimate, None for a gap, whose `gap` says what is wrong; values by seed."""

    estimate: Estimate | None = None
    gap: str = ""
    missing: bool = False
    n: tuple[int, int] | None = None
    seeds: dict[int, float] = field(default_factory=dict)


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
        """Look up; a mean distortion of too few successes is no value."""
        measured, rows = self._measure(of)
        if not rows or (measured.value is None and measured.status != "n/a"):
            return Found(gap=measured.status, missing=True)
        if measured.value is None:
            return Found(gap="n/a", n=measured.n)
        if of.metric == "distortion":
            success = self._measure(Of("success_rate", of.model, of.attack, of.threat))[0].value
            if success is not None and success < COMPLETE:
                gap = f"censored, {formats.small(measured.value)} over the {formats.rate(success)} that fell"
                return Found(gap=gap, n=measured.n)
        seeds = {row.seed: float(row.value) for row in rows if row.status == "ok" and row.value is not None}
        return Found(_estimate(of.metric, measured), n=measured.n, seeds=seeds)

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
        key = of.threat, of.metric in DETECTED
        if key not in self._settings:
            self._settings[key] = _setting(self.rows, *key)
        setting = self._settings[key]
        if setting is None:
            return []
        return [row for row in rows if _fits(row, setting)]


def places(rows: Sequence[Row], labels: Mapping[str, Mapping[str, str]]) -> list[Place]:
    """A place for every data set, model and budget, as first met."""
    apart: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        apart.setdefault((row.data, row.model, row.budget), []).append(row)
    return [Place(own, labels) for own in apart.values()]


def _first(rows: list[Row]) -> tuple[str, str, str]:
    return (rows[0].data, rows[0].model, rows[0].budget) if rows else ("", "", "")


def _setting(rows: list[Row], threat: str, detected: bool) -> tuple[str, str, str | float] | None:
    """The plain threat model, the paper's detector and the validation rule where they are there, else the nearest."""
    known = dict.fromkeys(
        (row.threat, row.detector, row.bandwidth)
        for row in rows
        if row.attack != CLEAN and row.threat.partition("[")[0] == threat
    )
    ranked = sorted(known, key=lambda one: (not _plain(one), one[0] != threat, one[2] != "validation"))
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


def _estimate(metric: str, measured: Measure) -> Estimate:
    """Within what the metric can be; where all values were at an end of [0, 1], as far from it as n allows."""
    value, low, high = measured.value, measured.low, measured.high
    assert value is not None
    if low is None or high is None:
        return Estimate(value)
    low, high = formats.within(metric, low), formats.within(metric, high)
    if metric.startswith("auc") and low == high and value in (0.0, 1.0) and measured.n and measured.n[0]:
        away = from_edge(measured.n[0])
        return Estimate(value, 1 - away, 1.0) if value else Estimate(value, 0.0, away)
    return Estimate(value, low, high)
