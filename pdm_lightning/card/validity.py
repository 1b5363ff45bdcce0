"""Check 9: are the images what they claim to be?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import name_of, tolerable
from pdm_lightning.card.evidence import Evidence
from pdm_lightning.matching import ROUNDING

FRAGILE = 0.05
"""Share of the misclassified images that rounding to eight bits may undo."""


def validity(evidence: Evidence) -> Finding:
    """(9) Images inside box and ball, successes that a fresh pass confirms, also in eight bits."""
    found = Finding()
    for run in evidence.study():
        if "outside_box" in run.facts:
            faults = "; ".join(_faults(run.facts, len(run.index)))
            numbers = {key: value for key, value in run.facts.items() if key != "noise"}
            found.judge(name_of(evidence, run), faults, **numbers)
    return found


def _faults(facts: Mapping[str, Any], n: int) -> list[str]:
    faults = []
    if facts["outside_box"]:
        faults.append(f"{facts['outside_box']} of {n} images lie outside [0, 1]: clip them")
    if facts["outside_ball"]:
        faults.append(
            f"{facts['outside_ball']} of {n} images lie outside the radius: project them onto the ball"
        )
    if not tolerable(facts["claims_wrong"], n):
        faults.append(
            f"{facts['claims_wrong']} of {n} recorded outcomes are not what a fresh pass says: craft anew"
        )
    if facts["recorded_distance_error"] > ROUNDING * (1 + max(facts["largest_l2"], facts["largest_linf"])):
        faults.append(
            f"recorded distances are off by up to {facts['recorded_distance_error']:.2g}: measure them on the images"
        )
    fooled = facts["rounded"]["n"]
    kept = max(facts["rounded"]["fooled"], facts["rounded_directed"]["fooled"])
    faults += _fragile("successes", kept, fooled)
    if "rounded_joint" in facts:
        joint = facts["rounded_joint"]
        faults += _fragile("joint successes", joint["held"], joint["n"])
    return faults


def _fragile(what: str, kept: int, n: int) -> list[str]:
    """The fault where too many of n do not survive a file of 8 bits."""
    lost = n - kept
    # one image is no share of a handful
    if lost <= max(FRAGILE * n, 1):
        return []
    return [
        f"{lost} of {n} {what} do not survive rounding to 8 bits in the ball: no image file can hold them"
    ]
