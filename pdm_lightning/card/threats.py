"""Check 5: who knows more harms more."""

from __future__ import annotations

from collections.abc import Iterator

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import ball_name, share, tolerable
from pdm_lightning.card.evidence import Evidence
from pdm_lightning.card.harm import Ball, all_attacked, balls, detectors, within, worst

#: What is compared: the threat models of who knows more, and of who knows less.
ORDER = {
    "white box >= gray box": (("white_box",), ("gray_box",)),
    "gray box >= black box": (("gray_box",), ("black_box", "transfer")),
}


def threats(evidence: Evidence) -> Finding:
    """(5) Who knows more harms at least the same images, one by one."""
    found, seen = Finding(), set[str]()
    for model, ball, detector in _places(evidence):
        for label in ORDER:
            if _compare(evidence, model, ball, detector, label, found):
                seen.add(label)
    absent = [label for label in ORDER if label not in seen]
    if absent:
        found.missing = f"not compared: {' and '.join(absent)}; it takes both in one ball, under one detector"
    return found


def _places(evidence: Evidence) -> Iterator[tuple[str, Ball, str]]:
    for model in evidence.models:
        for ball in balls(run for run in evidence.study() if run.model == model):
            for detector in detectors(evidence, model):
                yield model, ball, detector


def _compare(evidence: Evidence, model: str, ball: Ball, detector: str, label: str, found: Finding) -> bool:
    """Whether there was something to compare."""
    strong, weak = (within(evidence, model, ball, detector, names) for names in ORDER[label])
    images = all_attacked([*strong, *weak])
    what = f"{evidence.models[model].title}, {detector}, {ball_name(ball)}, {label}"
    if not strong or not weak or not len(images):
        return False
    if {run.key for run in strong} <= {run.key for run in weak}:
        found.skip(f"{what}: the attacks of who knows more are those of who knows less")
        return False
    if all(run.lean for run in strong):
        found.skip(f"{what}: all attacks of who knows more are declared lean")
        return False
    most, least = (worst(runs, images, ball, detector) for runs in (strong, weak))
    missed, n = int((least & ~most).sum()), len(images)
    attacks = ", ".join(dict.fromkeys(run.name for run in strong))
    fault = f"{missed} of {n} images fall to who knows less alone: {attacks} are too weak, add stronger ones"
    numbers = {"exceptions": missed, "n": n, "more": share(most), "less": share(least)}
    # who knows more may also do all that who knows less does
    numbers["more_with_all_attacks"] = share(most | least)
    found.judge(what, "" if tolerable(missed, n) else fault, **numbers)
    return True
