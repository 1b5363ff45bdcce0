"""Check 12, second half: is a claimed robustness plausible?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import ball_name, rows
from pdm_lightning.card.evidence import Evidence, Run
from pdm_lightning.card.harm import Ball, all_attacked, balls, detectors, level, within, worst

KNOWN = Path(__file__).with_name("known_robust_accuracy.json")


def judge_claims(evidence: Evidence, found: Finding) -> None:
    """Hold each claim of a white-box study against the best robust accuracy known at half the radius.

    Robust detection at a radius gives a robust classifier at half of it (Tramer 2022): a detector that beats the best
    known classifier there is a breakthrough, or its evaluation is broken.
    """
    for data, what, ball, claim in _claims(evidence):
        known = best_known(data, ball)
        if known is None:
            found.skip(f"{what}: no robust accuracy is known for this data at up to half the radius")
            found.note(what, claimed=claim, known=None)
            continue
        fault = ""
        if claim > known["accuracy"]:
            fault = f"implausible: {claim:.1%} claimed, {known['accuracy']:.1%} is the best known at half the radius"
            fault += ": look for a stronger white-box attack"
        found.judge(what, fault, claimed=claim, known=known)


def best_known(data: str, ball: Ball) -> dict[str, Any] | None:
    """The best robust accuracy at the largest known radius up to half the ball's."""
    table = json.loads(KNOWN.read_text(encoding="utf-8"))
    name = table["same_as"].get(data, data)
    fit = [row for row in table["known"] if (row["data"], row["norm"]) == (name, ball[0])]
    small = [row for row in fit if row["eps"] <= ball[1] / 2 + 1e-9]
    return max(small, key=lambda row: (row["eps"], row["accuracy"]), default=None)


def _claims(evidence: Evidence) -> Iterator[tuple[str, str, Ball, float]]:
    """Data, words, ball and robust accuracy with rejection of each model and detector under white-box attacks."""
    for key, model in evidence.models.items():
        white = [run for run in evidence.study() if run.model == key and "white_box" in run.threats]
        for ball in balls(white):
            for detector in detectors(evidence, key):
                runs = within(evidence, key, ball, detector, ("white_box",))
                if any(run.ball == ball for run in runs) and len(all_attacked(runs)):
                    what = f"{model.title}, {detector} at {ball_name(ball)}, robust accuracy"
                    yield model.data, what, ball, _claim(runs, ball, detector)


def _claim(runs: list[Run], ball: Ball, detector: str) -> float:
    """Of all images tried, those right and unflagged when clean, and not harmed by any attack.

    Runs try the first images of one order, so that the run which tried fewest has tried what all have tried.
    """
    images = all_attacked(runs)
    watched, limit = runs[0].watched[detector], level(runs[0].watched[detector])
    assert limit is not None
    accepted = watched.clean[rows(runs[0], images)] <= limit
    kept = accepted & ~worst(runs, images, ball, detector)
    return int(kept.sum()) / max(1, min(run.candidates for run in runs))
