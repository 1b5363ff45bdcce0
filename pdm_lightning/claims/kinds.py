"""The kinds of comparison that claims are made of: each looks up its measures and gives its parts.

Every kind says that some quantity with an interval lies in some region: a value in [least, most], a difference above
0, a ratio in [least, most]. Reproduced: the whole interval lies inside; not reproduced: the whole interval lies
outside; undecided: else, and where a value has no interval. A refutation has a p-value, for the correction of claims
that are made of several parts (`verdicts.corrected`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

from pdm_lightning.claims import wording
from pdm_lightning.claims.found import Found, Of, compared
from pdm_lightning.claims.intervals import Estimate, decide, exponential, p_outside
from pdm_lightning.claims.place import Place
from pdm_lightning.claims.verdicts import NOT_MEASURED, REFUTED, UNDECIDED, Part
from pdm_lightning.report import formats

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
class Never:
    """No image does what this share counts.

    A single one refutes. None at all: reproduced where the share of all images can be no more than `most`.
    """

    of: Of
    most: float = 0.01

    def parts(self, place: Place) -> list[Part]:
        """One part."""
        found, what = place.find(self.of), wording.name(place, self.of)
        if found.estimate is None:
            return [gap(what, {"": found})]
        says = f"{wording.estimate(self.of.metric, found.estimate)}, asked: none{wording.count(found)}"
        return [part(what, found.estimate, -math.inf, self.most, says, found, never=found.estimate.value > 0)]


@dataclass(frozen=True)
class Order:
    """One measure is above another; on the data of `ties`, where the paper prints equals, not below it by `SLACK`."""

    above: Of
    below: Of
    ties: tuple[str, ...] = ()

    def parts(self, place: Place) -> list[Part]:
        """One part: the difference."""
        above, below = place.find(self.above), place.find(self.below)
        what = wording.pair(place, self.above, self.below, " - ")
        if above.estimate is None or below.estimate is None:
            return [gap(what, wording.sides(place, self.above, self.below, above, below))]
        found = compared(above, below)
        says = wording.both(self.above.metric, above, below) + wording.difference(self.above.metric, found)
        says += wording.counts(above, below)
        slack = SLACK if place.data in self.ties else 0.0
        if slack:
            says += f", asked: above -{wording.bare(slack)}"
        return [part(what, found, -slack, math.inf, says, above, below, strict=True)]


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
        logs = compared(over, under, logarithms=True)
        found, p = exponential(logs), p_outside(logs, math.log(self.least), math.log(self.most))
        asked = f"{self.least:g} or more" if self.most == math.inf else f"{self.least:g} to {self.most:g}"
        says = (
            f"{wording.both(self.over.metric, over, under)}ratio {wording.ratio(found)}, asked: {asked}"
            f"{wording.counts(over, under)}"
        )
        return [part(what, found, self.least, self.most, says, over, under, p=p)]


@dataclass(frozen=True)
class Layers:
    """On every layer that the study measured, one model's gradients are at least `least` times another's."""

    over: Of
    under: Of
    least: float = 1.0

    def parts(self, place: Place) -> list[Part]:
        """One part a layer."""
        layers = place.layers(self.over.metric)
        if not layers:
            return [Part(wording.pair(place, self.over, self.under, " / "), NOT_MEASURED)]
        sides = ([_on(of, layer) for of in (self.over, self.under)] for layer in layers)
        return [one for over, under in sides for one in Ratio(over, under, self.least).parts(place)]


def _on(of: Of, layer: str) -> Of:
    return replace(of, metric=f"{of.metric}:{layer}")


@dataclass(frozen=True)
class SameOrder:
    """Of every two models that clearly differ in one measure, the one above is above in another measure, too.

    `causes` and `effects` are of the same models, in one order. A part is refuted where both differ clearly, in
    opposite directions.
    """

    causes: tuple[Of, ...]
    effects: tuple[Of, ...]

    def parts(self, place: Place) -> list[Part]:
        """One part a pair that differs in the first measure; a single one where none does."""
        sides = list(zip(self.causes, self.effects, strict=True))
        parts = [one for a, b in combinations(sides, 2) for one in self._pair(place, a, b)]
        what = f"{wording.metric(self.causes[0].metric)} and {wording.metric(self.effects[0].metric)}"
        return parts or [
            Part(what, UNDECIDED, f"no two models clearly differ in {what.partition(' and ')[0]}")
        ]

    def _pair(self, place: Place, a: tuple[Of, Of], b: tuple[Of, Of]) -> list[Part]:
        causes = [place.find(one[0]) for one in (a, b)]
        effects = [place.find(one[1]) for one in (a, b)]
        if all(one.estimate is not None for one in causes):
            apart = compared(*causes)
            if apart.value < 0:
                return self._pair(place, b, a)
            clear = p_outside(apart, -math.inf, 0.0)
            if apart.low is not None and apart.low <= 0:
                return []
        what = wording.pair(place, a[1], b[1], " - ")
        every = [*causes, *effects]
        if any(one.estimate is None for one in every):
            names = [
                f"{place.title(of.model)}, {wording.metric(of.metric)}" for of in (a[0], b[0], a[1], b[1])
            ]
            return [gap(what, dict(zip(names, every, strict=True)))]
        found = compared(*effects)
        p = p_outside(found, 0.0, math.inf)
        says = (
            f"{wording.both(a[1].metric, *effects)}{wording.difference(a[1].metric, found)}{wording.counts(*effects)}, "
            f"asked: above, as in {wording.metric(a[0].metric)}, {wording.both(a[0].metric, *causes).rstrip(', ')}"
        )
        both = None if p is None or clear is None else max(p, clear)
        return [part(what, found, 0.0, math.inf, says, *every, strict=True, p=both)]


def best(
    of: Of, models: Sequence[str], *, lowest: bool = False, ties: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[Order, ...]:
    """One model above (or, with `lowest`, below) each of the others, whose `ties` are the data of `Order.ties`."""
    others = [Of(of.metric, model, of.attack, of.threat) for model in models]
    return tuple(
        Order(other, of) if lowest else Order(of, other, (ties or {}).get(other.model, ()))
        for other in others
    )


def part(
    what: str,
    found: Estimate,
    least: float,
    most: float,
    says: str,
    *measures: Found,
    strict: bool = False,
    printed: float | None = None,
    p: float | None = None,
    never: bool = False,
) -> Part:
    """The part that an estimate makes of a region.

    Undecided, whatever the numbers, where they rest on a collapsed training, and where two sides are of different
    seeds. `p` is that of `intervals.p_outside`, where it is not of `found` itself. With `never`, refuted for sure.
    """
    numbers: dict[str, Any] = {
        "value": found.value,
        "low": _finite(found.low),
        "high": _finite(found.high),
        "least": _finite(least),
        "most": _finite(most),
        "n": [list(measure.n) if measure.n else None for measure in measures],
        "seeds": [sorted(measure.seeds) for measure in measures],
    }
    if printed is not None:
        numbers["paper"] = printed
    says += wording.marks(*measures)
    refused = _refused(measures)
    if refused:
        return Part(what, UNDECIDED, f"{says}; {refused}", numbers)
    if never:
        return Part(what, REFUTED, says, numbers, 0.0)
    if not found.known:
        return Part(what, UNDECIDED, f"{says}; no interval of {_trainings(measures)}", numbers)
    verdict = decide(found, least, most, strict=strict)
    return Part(what, verdict, says, numbers, p_outside(found, least, most) if p is None else p)


def _refused(measures: Sequence[Found]) -> str:
    """Why numbers decide nothing; empty where they may."""
    seeds = sorted({seed for measure in measures for seed in measure.collapsed})
    if seeds:
        return f"rests on a collapsed training (seed {formats.words([str(seed) for seed in seeds])})"
    if len({frozenset(measure.seeds) for measure in measures}) > 1:
        return f"of different seeds: {' against '.join(dict.fromkeys(map(wording.seeds, measures)))}"
    return ""


def _trainings(measures: Sequence[Found]) -> str:
    several = any(len(measure.seeds) > 1 for measure in measures)
    return "seeds that do not differ" if several else "one training: more seeds give one"


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
