"""The kinds of comparison that claims are made of: each looks up its measures and gives its parts.

Every kind says that some quantity with an interval lies in some region: a value in [least, most], a difference above
0, a ratio in [least, most]. Reproduced: the whole interval lies inside; not reproduced: the whole interval lies
outside; undecided: else, and where a value has no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pdm_lightning.claims import wording
from pdm_lightning.claims.intervals import Estimate, decide, difference, exponential, logarithm, mean
from pdm_lightning.claims.place import Found, Of, Place
from pdm_lightning.claims.verdicts import NOT_MEASURED, UNDECIDED, Part

SLACK = 0.005
"""By how much an AUC may lie below another that the paper prints as its equal."""


class Kind(Protocol):
    """One sort of comparison."""

    def parts(self, place: Place) -> list[Part]:
        """The comparisons at one place of the study."""
        ...


@dataclass(frozen=True)
class Within:
    """A measure lies in [least, most]: at most, at least, or, given `printed`, near what the paper prints."""

    of: Of
    least: float = -math.inf
    most: float = math.inf
    printed: float | None = None

    def parts(self, place: Place) -> list[Part]:
        """One part."""
        found, what = place.find(self.of), wording.name(place, self.of)
        if found.estimate is None:
            return [gap(what, {"": found})]
        asked = wording.region(self.of.metric, self.least, self.most, self.printed)
        says = f"{wording.estimate(self.of.metric, found.estimate)}, {asked}{wording.count(found)}"
        return [part(what, found.estimate, self.least, self.most, says, found, printed=self.printed)]


@dataclass(frozen=True)
class Order:
    """One measure is above another; with `slack`, not below it by as much."""

    above: Of
    below: Of
    slack: float = 0.0

    def parts(self, place: Place) -> list[Part]:
        """One part: the difference."""
        above, below = place.find(self.above), place.find(self.below)
        what = wording.pair(place, self.above, self.below, " - ")
        if above.estimate is None or below.estimate is None:
            return [gap(what, wording.sides(place, self.above, self.below, above, below))]
        found = compared(above, below)
        says = wording.both(self.above.metric, above, below) + wording.difference(self.above.metric, found)
        says += wording.counts(above, below)
        if self.slack:
            says += f", asked: above -{wording.bare(self.slack)}"
        return [part(what, found, -self.slack, math.inf, says, above, below, strict=True)]


@dataclass(frozen=True)
class Ratio:
    """One positive measure is from `least` to `most` times another."""

    over: Of
    under: Of
    least: float = 1.0
    most: float = math.inf

    def parts(self, place: Place) -> list[Part]:
        """One part: the ratio, whose interval is taken on the logarithms."""
        over, under = place.find(self.over), place.find(self.under)
        what = wording.pair(place, self.over, self.under, " / ")
        if over.estimate is None or under.estimate is None:
            return [gap(what, wording.sides(place, self.over, self.under, over, under))]
        if min(over.estimate.value, under.estimate.value) <= 0:
            return [Part(what, UNDECIDED, "no ratio of what is not positive")]
        found = exponential(compared(over, under, logarithms=True))
        asked = f"{self.least:g} or more" if self.most == math.inf else f"{self.least:g} to {self.most:g}"
        says = (
            f"{wording.both(self.over.metric, over, under)}ratio {wording.ratio(found)}, asked: {asked}"
            f"{wording.counts(over, under)}"
        )
        return [part(what, found, self.least, self.most, says, over, under)]


def best(
    of: Of, models: Sequence[str], *, lowest: bool = False, ties: Sequence[str] = ()
) -> tuple[Order, ...]:
    """One model above (or, with `lowest`, below) each of the others; not clearly behind those of `ties`."""
    others = [Of(of.metric, model, of.attack, of.threat) for model in models]
    return tuple(
        Order(other, of) if lowest else Order(of, other, SLACK if other.model in ties else 0.0)
        for other in others
    )


def compared(a: Found, b: Found, *, logarithms: bool = False) -> Estimate:
    """Their difference, or that of their logarithms: paired by seed where two or more seeds have both.

    Independent, by `intervals.difference`, for a single seed, and where no seed differs from another.
    """
    assert a.estimate is not None and b.estimate is not None
    seeds = sorted(a.seeds.keys() & b.seeds.keys())
    pairs = [(a.seeds[seed], b.seeds[seed]) for seed in seeds]
    if len(pairs) > 1 and not (logarithms and min(min(pair) for pair in pairs) <= 0):
        found = mean([math.log(x) - math.log(y) if logarithms else x - y for x, y in pairs])
        if found.known:
            return found
    if logarithms:
        return difference(logarithm(a.estimate), logarithm(b.estimate))
    return difference(a.estimate, b.estimate)


def part(
    what: str,
    found: Estimate,
    least: float,
    most: float,
    says: str,
    *measures: Found,
    strict: bool = False,
    printed: float | None = None,
) -> Part:
    """The part that an estimate makes of a region."""
    numbers: dict[str, Any] = {
        "value": found.value,
        "low": _finite(found.low),
        "high": _finite(found.high),
        "least": _finite(least),
        "most": _finite(most),
        "n": [list(measure.n) if measure.n else None for measure in measures],
        "seeds": [len(measure.seeds) for measure in measures],
    }
    if printed is not None:
        numbers["paper"] = printed
    if not found.known:
        says += "; no interval of one training: more seeds give one"
    return Part(what, decide(found, least, most, strict=strict), says, numbers)


def gap(what: str, found: Mapping[str, Found]) -> Part:
    """The part of measures, by their names, that are not all there."""
    gaps = {name: one for name, one in found.items() if one.estimate is None}
    if any(one.missing for one in gaps.values()):
        states = {one.gap for one in gaps.values() if one.missing} - {"missing"}
        return Part(what, NOT_MEASURED, ", ".join(sorted(states)))
    says = (f"{name} {one.gap}{wording.count(one)}".strip() for name, one in gaps.items())
    return Part(what, UNDECIDED, "; ".join(says))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
