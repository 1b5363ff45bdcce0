"""A claim of the paper, as data, and how it is judged on a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pdm_lightning.claims.found import Of
from pdm_lightning.claims.kinds import Kind, Within
from pdm_lightning.claims.place import ROLES, Place, places
from pdm_lightning.claims.verdicts import (
    NOT_MEASURED,
    REFUTED,
    REPRODUCED,
    UNDECIDED,
    Judged,
    Part,
    combine,
    corrected,
)
from pdm_lightning.report.cells import CLEAN
from pdm_lightning.report.formats import published_fraction
from pdm_lightning.report.published import paper_value
from pdm_lightning.report.rows import Row

PAPER = ("mnist", "cifar10")
"""The paper's data sets."""
SHOWN = 3
"""Comparisons that a verdict's line names; the rest is counted."""


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes
    ----------
    id, section, where, says : str
        Its name, the paper's section and the place in it, and the claim in our words with what the paper prints.
    kinds : tuple of Kind
        The comparisons that it is made of; all have to hold.
    needs : str
        The words after ``pdml run`` that measure it.
    on : tuple of str
        Those of the paper's data sets that it speaks of. What the paper says of one of them alone, as it does where the
        two disagree and where it prints a number, is judged on no other data.
    """

    id: str
    section: str
    where: str
    says: str
    kinds: tuple[Kind, ...]
    needs: str
    on: tuple[str, ...] = PAPER

    @property
    def general(self) -> bool:
        """Whether the paper says it of all its data."""
        return self.on == PAPER

    def speaks_of(self, data: str) -> bool:
        """Whether it is judged on a data set: those it names; if `general`, any that the paper did not try."""
        return data in self.on or (self.general and data not in PAPER)


def printed(of: Of, data: str, margin: float, *, relative: bool = False) -> Within:
    """That a measure is what the paper prints for it, within a margin, which may be a share of the number.

    Raises
    ------
    ValueError
        If the paper prints none.
    """
    metric = "auc" if of.metric == "auc_proxy" else of.metric
    value = _paper(metric, data, of.model, of.attack, of.threat)
    width = margin * value if relative else margin
    return Within(of, value - width, value + width, value)


def quoted(
    metric: str, data: str, models: Sequence[str], attack: str = CLEAN, threat: str = "gray_box"
) -> str:
    """The paper's numbers, for a claim's words: ``baseline .98, RCE .31``."""
    return ", ".join(f"{ROLES[model]} {_quote(metric, data, model, attack, threat)}" for model in models)


def _quote(metric: str, data: str, model: str, attack: str, threat: str) -> str:
    value = _paper(metric, data, model, attack, threat)
    return f"{100 * value:.4g}" if metric == "accuracy" else published_fraction(value)


def _paper(metric: str, data: str, model: str, attack: str, threat: str) -> float:
    value = paper_value(metric, data, "ce" if model == "base" else model, attack, threat)
    if value is None:
        raise ValueError(f"the paper prints no {metric} of {model} on {data} under {attack}")
    return value


def judge(
    claims: Iterable[Claim], rows: Sequence[Row], labels: Mapping[str, Mapping[str, str]] | None = None
) -> list[Judged]:
    """Judge claims on the rows of a study.

    Parameters
    ----------
    claims : iterable of Claim
    rows : sequence of Row
        Of any number of data sets, models, budgets and seeds; seeds are reduced, the others judged apart.
    labels : mapping of str to mapping, optional
        As in `StudyResult.labels`.

    Returns
    -------
    list of Judged
        In the order of `claims`: one for each place that the claim speaks of; a single one, of no data, where none
        has anything to judge.
    """
    known = places(rows, labels or {})
    return [one for claim in claims for one in _judge(claim, known)]


def _judge(claim: Claim, known: list[Place]) -> list[Judged]:
    found = [_at(claim, place) for place in known if claim.speaks_of(place.data)]
    if any(one.verdict != NOT_MEASURED for one in found):
        return found
    says = _absent(claim, [part for one in found for part in one.parts])
    return [Judged(claim.id, claim.section, claim.where, claim.says, "", "", "", NOT_MEASURED, says)]


def _at(claim: Claim, place: Place) -> Judged:
    parts = corrected([part for kind in claim.kinds for part in kind.parts(place)])
    verdict = combine(parts)
    data, model = place.label("data", place.data), place.label("model", place.model)
    says = _absent(claim, parts) if verdict == NOT_MEASURED else _line(parts, verdict)
    other = place.data not in PAPER
    if other:
        says = f"On {data}, which the paper did not try: {says}"
    budget = place.label("budget", place.budget)
    return Judged(
        claim.id, claim.section, claim.where, claim.says, data, model, budget, verdict, says, parts, other
    )


def _absent(claim: Claim, parts: list[Part]) -> str:
    """What failed or was refused, and what measures it."""
    states = dict.fromkeys(part.says for part in parts if part.says)
    data = f" data={','.join(claim.on)}" if not claim.general else ""
    return "; ".join([*states, f"needs pdml run {claim.needs}{data}"])


def _line(parts: list[Part], verdict: str) -> str:
    """The parts that decide: those refuted, else those that are open, else all."""
    chosen = [part for part in parts if part.verdict == verdict]
    if verdict == REFUTED and len(parts) > 1:
        return f"{len(chosen)} of {len(parts)} comparisons refuted: {_some(chosen)}"
    if verdict == UNDECIDED:
        absent = [part for part in parts if part.verdict == NOT_MEASURED]
        chosen = [part for part in parts if part.verdict == UNDECIDED]
        held = sum(part.verdict == REPRODUCED for part in parts)
        told = [f"{held} of {len(parts)} comparisons hold"] if held else []
        told += [f"open: {_some(chosen)}"] if chosen else []
        told += [f"not measured: {_some(absent)}"] if absent else []
        return "; ".join(told)
    return _some(chosen)


def _some(parts: list[Part]) -> str:
    more = f"; and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return "; ".join(map(str, parts[:SHOWN])) + more
