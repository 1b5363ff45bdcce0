"""Claims on accuracy under attack against the radius: it falls, one curve lies above others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from pdm_lightning.claims import wording
from pdm_lightning.claims.intervals import decide
from pdm_lightning.claims.kinds import Order, compared
from pdm_lightning.claims.place import Found, Of, Place
from pdm_lightning.claims.verdicts import NOT_MEASURED, REFUTED, REPRODUCED, UNDECIDED, Part, combine
from pdm_lightning.report import formats

RESILIENCE = "robust_accuracy"
STEPS = 3
"""Fewer radii than these are no curve."""


@dataclass(frozen=True)
class Monotone:
    """The resilience of every model falls as the radius grows.

    Not reproduced: it is clearly higher at a larger radius than at a smaller one. Reproduced: from first to last
    radius it clearly falls, and no value is above one at a smaller radius (neighbouring intervals overlap: between
    them the values decide). Else undecided.
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
        signs = [_falls(a, b) for (_, a), (_, b) in combinations(curve, 2)]
        whole = _falls(curve[0][1], curve[-1][1])
        rises = sum(value < 0 for value, _ in signs)
        says = (
            f"{_percent(curve[0][1])} at eps {curve[0][0]:g}, {_percent(curve[-1][1])} at {curve[-1][0]:g}, "
            f"{rises} of {len(signs)} pairs of radii rise{wording.count(curve[0][1])}"
        )
        if any(verdict == REFUTED for _, verdict in signs):
            return Part(what, REFUTED, says)
        return Part(what, REPRODUCED if whole[1] == REPRODUCED and not rises else UNDECIDED, says)


@dataclass(frozen=True)
class Above:
    """One model's resilience is above that of others: at every radius, or, with `most`, at more than half of them.

    With `most`: not reproduced where it is clearly below another at half of the radii or more.
    """

    attack: str
    model: str
    others: tuple[str, ...]
    most: bool = False

    def parts(self, place: Place) -> list[Part]:
        """One part a radius and other model; with `most`, a single one."""
        radii = place.radii(self.attack)
        steps = [self._step(place, eps) for eps in radii]
        what = f"{place.title(self.model)} above {formats.words([place.title(m) for m in self.others])}"
        if len(steps) < STEPS or all(combine(step) == NOT_MEASURED for step in steps):
            return [Part(f"{what}, {self.attack.upper()}", NOT_MEASURED)]
        if not self.most:
            return [one for step in steps for one in step]
        verdicts = [combine(step) for step in steps]
        above, below = verdicts.count(REPRODUCED), verdicts.count(REFUTED)
        says = f"above at {above} of {len(steps)} radii, below one of them at {below}"
        numbers = {"above": above, "below": below, "radii": len(steps)}
        verdict = REPRODUCED if 2 * above > len(steps) else REFUTED if 2 * below >= len(steps) else UNDECIDED
        return [Part(f"{what}, {self.attack.upper()}", verdict, says, numbers)]

    def _step(self, place: Place, eps: float) -> list[Part]:
        own = place.at(Of(RESILIENCE, self.model, self.attack), eps)
        orders = (Order(own, place.at(Of(RESILIENCE, other, self.attack), eps)) for other in self.others)
        return [part for order in orders for part in order.parts(place)]


def _falls(a: Found, b: Found) -> tuple[float, str]:
    fall = compared(a, b)
    return fall.value, decide(fall, 0.0, math.inf, strict=True)


def _percent(found: Found) -> str:
    assert found.estimate is not None
    return f"{formats.percent(found.estimate.value)} %"
