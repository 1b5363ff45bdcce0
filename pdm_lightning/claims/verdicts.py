"""What comes of a claim: the verdict, and the comparisons that it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pdm_lightning.report.difference_tables import holm
from pdm_lightning.report.formats import p_value

REPRODUCED, REFUTED, UNDECIDED, NOT_MEASURED = "reproduced", "not reproduced", "undecided", "not measured"
VERDICTS = (REPRODUCED, REFUTED, UNDECIDED, NOT_MEASURED)

ALPHA = 0.05


@dataclass(frozen=True)
class Part:
    """One comparison of a claim.

    Attributes
    ----------
    what : str
        What was compared, in the study's labels: ``PDM - RCE, FGSM-0.1``.
    verdict : str
        One of :data:`VERDICTS`.
    says : str
        The numbers, their intervals and n.
    numbers : dict
        The same as plain values.
    p : float or None
        Of the refutation: two-sided, of what the claim says being so; None where nothing could be refuted.
    """

    what: str
    verdict: str
    says: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    p: float | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.says}" if self.says else self.what


@dataclass(frozen=True)
class Judged:
    """A claim of the paper, judged on one data set, model and budget of a study.

    Attributes
    ----------
    id : str
        Of the claim; the same on every data set.
    section, where : str
        Of the paper: ``4.2 Gray box``, and the place in it (``Table 2``).
    claim : str
        In our words, with what the paper prints.
    data, model, budget : str
        Labels of what it was judged on; empty where nothing was.
    verdict : str
        One of :data:`VERDICTS`.
    says : str
        One line: the comparisons that decide, with intervals and n, or what is needed to judge.
    parts : list of Part
        All comparisons.
    other : bool
        Whether it was judged on data that the paper did not try, of which the paper says nothing.
    """

    id: str
    section: str
    where: str
    claim: str
    data: str
    model: str
    budget: str
    verdict: str
    says: str
    parts: list[Part] = field(default_factory=list)
    other: bool = False

    @property
    def place(self) -> str:
        """``MNIST, ResNet-20, budget cpu``; empty where nothing was judged."""
        budget = f"budget {self.budget}" if self.budget else ""
        return ", ".join(part for part in (self.data, self.model, budget) if part)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as ``claims.json`` holds them."""
        parts = [
            {"what": part.what, "verdict": part.verdict, "p": part.p, **part.numbers} for part in self.parts
        ]
        return {**vars(self), "parts": parts}


def combine(parts: Sequence[Part]) -> str:
    """The verdict on all parts: refuted by any, reproduced by all, not measured where nothing was; else undecided."""
    verdicts = {part.verdict for part in parts}
    if REFUTED in verdicts:
        return REFUTED
    return verdicts.pop() if len(verdicts) == 1 else UNDECIDED


def corrected(parts: Sequence[Part]) -> list[Part]:
    """The parts, undecided where a refutation does not outlast Holm's correction for their number.

    A single part refutes a claim: of k parts of equals, chance refutes one with a probability of up to k / 40, and of
    1 / 20 at most after the correction. That all parts have to hold needs none: a claim that is wrong in one of them is
    wrongly held where that one is, whatever the others say (intersection-union).
    """
    tested = [place for place, part in enumerate(parts) if part.p is not None]
    lifted = dict(zip(tested, holm([part.p for part in parts if part.p is not None]), strict=True))
    return [_corrected(part, lifted.get(place), len(tested)) for place, part in enumerate(parts)]


def _corrected(part: Part, p: float | None, tested: int) -> Part:
    if part.verdict != REFUTED or p is None or p < ALPHA:
        return part
    told = f"against it alone, not among {tested} comparisons (Holm: p = {p_value(p)})"
    return replace(part, verdict=UNDECIDED, says=f"{part.says}; {told}")


def tally(judged: Iterable[Judged]) -> dict[str, int]:
    """How many claims came to each verdict."""
    found = [one.verdict for one in judged]
    return {verdict: found.count(verdict) for verdict in VERDICTS}
