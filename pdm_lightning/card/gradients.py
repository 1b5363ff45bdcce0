"""Check 8: are the gradients usable, and used?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import common, lead, name_of, share, tolerable
from pdm_lightning.card.evidence import Evidence, Run

NONDETERMINISM = 1e-4
"""Difference of two equal passes, in standard deviations, above which it is no rounding."""
ZERO = 0.1
"""Share of gradients that may be zero in every pixel."""
UNCHANGED = 0.1
"""Share of an attack's failures that may be the clean images."""


def gradients(evidence: Evidence) -> Finding:
    """(8) Gradients are there, finite, the same each time, and the loss does not hide them."""
    found = Finding()
    for model in evidence.models.values():
        if model.gradients:
            found.judge(model.title, "; ".join(_masked(model.gradients)), **model.gradients)
    for run in evidence.study():
        if run.ball is not None and run.ball[1] == 0:
            found.skip(f"{run.name}: moves nothing, and is not asked to")
        elif not run.passes.any():
            found.skip(f"{run.name}: takes no gradient")
        elif run.lean:
            found.skip(f"{run.name}: declared lean")
        else:
            _judge_run(evidence, run, found)
    return found


def _masked(told: Mapping[str, Any]) -> list[str]:
    """What is wrong with the gradients of a model at its clean images."""
    scores = told.get("scores_nondeterministic", {})
    restless = [name for name, differ in scores.items() if not differ <= NONDETERMINISM]
    zero, differ, faults = told.get("zero", {}).get("margin", 0.0), told.get("nondeterministic", 0.0), []
    if told.get("nan"):
        faults.append(f"logits or gradients of {told['nan']} of {told['images']} images are not finite")
    if zero > ZERO:
        faults.append(
            f"the margin's gradient is zero for {zero:.0%} of the clean images: attack a smooth stand-in"
        )
    if not differ <= NONDETERMINISM:  # also where it is NaN
        faults.append(f"two equal passes differ by {differ:.2g}: attack the mean of several passes")
    if restless:
        faults.append(
            f"{', '.join(restless)}: two equal passes give different scores: fix its random numbers"
        )
    return faults


def _judge_run(evidence: Evidence, run: Run, found: Finding) -> None:
    zero = int(run.zero_gradients.sum()) / int(run.passes.sum())
    unchanged, failures = int(run.facts.get("unchanged", 0)), int((~run.fooled).sum())
    numbers: dict[str, Any] = {"zero": zero, "unchanged": unchanged, "failures": failures}
    faults = []
    if zero > ZERO:
        faults.append(f"{zero:.0%} of its gradients are zero: use attack.loss=margin")
    if unchanged > UNCHANGED * failures and not tolerable(unchanged, len(run.index)):
        faults.append(
            f"{unchanged} of {failures} failures are the clean images: the attack does not move them"
        )
    for probe in evidence.probes("margin", run):
        own, other = common(run, probe)
        ahead, n = lead(other, own), len(own)
        numbers |= {"success": share(own), "with_margin_loss": share(other), "n": n}
        if not tolerable(ahead, n):
            step = " to the same single step" if run.single_step else ""
            faults.append(
                f"with the margin loss {ahead} of {n} images more fall{step}, so {run.attack.get('loss', 'its loss')} "
                "hides part of the gradient: use attack.loss=margin"
            )
    found.judge(name_of(evidence, run), "; ".join(faults), **numbers)
