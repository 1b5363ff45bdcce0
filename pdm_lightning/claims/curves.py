"""Claims on accuracy under attack against the radius: it falls, one curve lies above others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pdm_lightning.claims import wording
from pdm_lightning.claims.found import Found, Of, compared
from pdm_lightning.claims.intervals import p_outside
from pdm_lightning.claims.kinds import Order, part
from pdm_lightning.claims.place import Place
from pdm_lightning.claims.verdicts import ALPHA, NOT_MEASURED, REFUTED, REPRODUCED, UNDECIDED, Part, combine
from pdm_lightning.report import formats

RESILIENCE = "robust_accuracy"
STEPS = 3
"""Fewer radii than these are no curve."""


@dataclass(frozen=True)
class Monotone:
    """The resilience of every model falls as the radius grows.

    Not reproduced: it is clearly higher at one radius than at the one before, or at the last than at the first, by
    Bonferroni's correction for their number. Reproduced: from first to last radius it clearly falls, and no value is
    above the one before (neighbouring intervals overlap: between them the values decide). Else undecided.
    """

    attack: str
    models: tuple[str, ...]

    def parts(self, place: Place) -> list[Part]:
        """One part a model."""
        radii = place.radii(self.attack)
        return [self._part(place, model, radii) for model in self.models]

    def _part(self, place: Place, model: str, radii: Sequence[float]) -> Part:
        of = Of(RESILIENCE, model, self.attack)
        what = f"{place.title(model)}, {self.attack.upper()}"
        found = [(eps, place.find(place.at(of, eps))) for eps in radii]
        curve = [(eps, one) for eps, one in found if one.estimate is not None]
        if len(curve) < STEPS:
            return Part(what, NOT_MEASURED)
        steps = [compared(a, b) for (_, a), (_, b) in pairwise(curve)]
        rises = sum(step.value < 0 for step in steps)
        (eps, first), (end, last) = curve[0], curve[-1]
        says = (
            f"{_percent(first)} at eps {eps:g}, {_percent(last)} at {end:g}, "
            f"{rises} of {len(steps)} steps rise{wording.count(first)}"
        )
        whole = part(
            what, compared(first, last), 0.0, math.inf, says, *(one for _, one in curve), strict=True
        )
        if whole.p is None:
            return whole
        known = [p for step in steps if (p := p_outside(step, 0.0, math.inf)) is not None]
        p = min(1.0, (len(known) + 1) * min([whole.p, *known]))
        falls = whole.verdict == REPRODUCED and not rises
        verdict = REFUTED if p < ALPHA else REPRODUCED if falls else UNDECIDED
        return replace(whole, verdict=verdict, p=p)


@dataclass(frozen=True)
class Above:
    """One model's resilience is above that of others: at every radius, or, with `most`, at more than half of them.

    Where both are at 0 there is nothing to be above: such comparisons are left out. `most` is judged by the p-values of
    the radii, corrected as a whole: that at so many of them it is above each other model, or below one of them
    (`_at_least`).
    """

    attack: str
    model: str
    others: tuple[str, ...]
    most: bool = False

    def parts(self, place: Place) -> list[Part]:
        """One part a radius and other model; with `most`, a single one."""
        radii = place.radii(self.attack)
        steps = [step for step in (self._step(place, eps) for eps in radii) if step]
        others = formats.words([place.title(m) for m in self.others])
        what = f"{place.title(self.model)} above {others}, {self.attack.upper()}"
        parts = [[part for order in step for part in order.parts(place)] for step in steps]
        if len(radii) < STEPS or (parts and all(combine(step) == NOT_MEASURED for step in parts)):
            return [Part(what, NOT_MEASURED)]
        if not parts:
            return [Part(what, UNDECIDED, "at 0 at every radius")]
        if not self.most:
            return [part for step in parts for part in step]
        verdicts, n = [combine(step) for step in parts], len(parts)
        above, below = verdicts.count(REPRODUCED), verdicts.count(REFUTED)
        says = f"above at {above} of {n} radii, below one of them at {below}"
        ahead = [max(map(_p, _turned(place, step))) for step in steps]
        behind = [min(1.0, len(step) * min(map(_p, step))) for step in parts]
        p = _at_least((n + 1) // 2, behind)
        holds = _at_least(n // 2 + 1, ahead) < ALPHA
        verdict = REPRODUCED if holds else REFUTED if p < ALPHA else UNDECIDED
        return [Part(what, verdict, says, {"above": above, "below": below, "radii": n}, p)]

    def _step(self, place: Place, eps: float) -> list[Order]:
        own = place.at(Of(RESILIENCE, self.model, self.attack), eps)
        others = [place.at(Of(RESILIENCE, other, self.attack), eps) for other in self.others]
        shown = [other for other in others if not (_at_zero(place, own) and _at_zero(place, other))]
        return [Order(own, other) for other in shown]


def _turned(place: Place, step: Sequence[Order]) -> list[Part]:
    """The parts of the opposite orders, whose refutation is that the first model is above."""
    return [part for order in step for part in Order(order.below, order.above).parts(place)]


def _p(part: Part) -> float:
    return 1.0 if part.p is None else part.p


def _at_least(u: int, values: Sequence[float]) -> float:
    """P-value of u of them or more being so, each with its own (Benjamini and Heller, Biometrics 2008; Bonferroni)."""
    return min(1.0, (len(values) - u + 1) * sorted(values)[u - 1])


def _at_zero(place: Place, of: Of) -> bool:
    estimate = place.find(of).estimate
    return estimate is not None and estimate.value == 0


def _percent(found: Found) -> str:
    assert found.estimate is not None
    return f"{formats.percent(found.estimate.value)} %"
