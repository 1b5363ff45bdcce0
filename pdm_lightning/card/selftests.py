"""Check 12, first half: does an attack find what is known to be there?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdm_lightning.card.card import Finding
from pdm_lightning.card.claims import judge_claims
from pdm_lightning.card.compare import EXCEPTIONS, class_of, name_of
from pdm_lightning.card.evidence import Evidence, Run

FOUND = 0.95
"""Share of the hidden images that an iterated attack has to find."""
NEARER = 0.5
"""Share of the images whose margin even a lean attack has to lower: of a wrong sign it is 0."""
ELSEWHERE = ("Mimicry",)
"""Classes of attacks that do not look for the nearest other class: a hidden image need not lie on their way."""


def selftest(evidence: Evidence) -> Finding:
    """(12) Each attack finds what is known to be there; no claim beats what anyone has reached."""
    found, by_key = Finding(), {run.key: run for run in evidence.study()}
    for model in evidence.models.values():
        for key, told in model.selftest.items():
            _judge(evidence, by_key[key], told, found)
    if not found.numbers:
        found.missing = "no attack was tested on a known model: pdml check does so"
    judge_claims(evidence, found)
    return found


def _judge(evidence: Evidence, run: Run, told: Mapping[str, Any], found: Finding) -> None:
    if run.lean:
        found.skip(f"{run.name}: declared lean, all but its sign")
        faults = [_sign(told["known"])]
    else:
        faults = [_known(told["known"]), _hidden(run, told, found)]
    found.judge(name_of(evidence, run), "; ".join(fault for fault in faults if fault), **told)


def _sign(told: Mapping[str, Any]) -> str:
    """A few iterations may reach no success at all, but they have to go the right way."""
    if told["rate"] > 0 or told["nearer"] > NEARER:
        return ""
    return f"it lowers the margin of {told['nearer']:.0%} of {told['n']} images of a linear model: check its sign"


def _known(told: Mapping[str, Any]) -> str:
    """A linear model: the best attack is known in closed form."""
    if told["rate"] >= told["expected"] - EXCEPTIONS - 1 / max(told["n"], 1):
        return ""
    reached = f"it succeeds on {told['rate']:.1%} of {told['n']} images of a linear model"
    return f"{reached}, where {told['expected']:.1%} fall: check its sign, step and loss"


def _hidden(run: Run, told: Mapping[str, Any], found: Finding) -> str:
    """The study's own network with an adversarial image hidden in each ball (Zimmermann et al. 2022)."""
    hidden = told.get("hidden")
    if not hidden:
        return ""
    if class_of(run) in ELSEWHERE:
        found.skip(f"{run.name}, hidden images: it seeks an embedding, and not whatever is another class")
        return ""
    if not hidden["n"]:
        found.skip(f"{run.name}, hidden images: none could be hidden")
        return ""
    if run.single_step:
        found.skip(f"{run.name}, hidden images: a single step")
        return ""
    if hidden["found"] >= FOUND * hidden["n"]:
        return ""
    return f"it finds {hidden['found']} of {hidden['n']} adversarial images known to be there: too few steps, or masked"
