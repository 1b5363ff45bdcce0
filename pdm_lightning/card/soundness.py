"""Checks 5 and 8 to 12: threat models in order, usable gradients, valid images, disjoint data, honest counts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from scipy.stats import betabinom

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import EXCEPTIONS, ROUNDING, common, name_of, several_steps, share
from pdm_lightning.card.evidence import Evidence, Run

NONDETERMINISM = 1e-4
ZERO, UNCHANGED, FRAGILE, FOUND = 0.1, 0.1, 0.05, 0.95
FAMILY = 0.05
LEAST = 50
KNOWN = Path(__file__).with_name("known_robust_accuracy.json")


def threats(evidence: Evidence) -> Finding:
    """(5) Who knows more harms at least the same images, one by one."""
    found, seen = Finding(), set[str]()
    for model in evidence.models:
        for ball in dict.fromkeys(r.ball for r in evidence.study() if r.model == model and r.ball):
            for detector in _detectors(evidence, model):
                white, gray, black = (
                    _harm(evidence, model, ball, detector, names)
                    for names in (("white_box",), ("gray_box",), ("black_box", "transfer"))
                )
                for label, strong, weak in (("white >= gray", white, gray), ("gray >= black", gray, black)):
                    if strong is None or weak is None:
                        continue
                    seen.add(label)
                    shared = strong.keys() & weak.keys()
                    missed = sum(weak[i] and not strong[i] for i in shared)
                    bad = len(shared) > 0 and missed / len(shared) >= EXCEPTIONS
                    fault = (
                        f"{label}: {missed} of {len(shared)} images fall to who knows less alone"
                        if bad
                        else ""
                    )
                    what = f"{evidence.models[model].title}, {detector}, {ball[0]} {ball[1]:g}, {label}"
                    found.judge(what, fault, exceptions=missed, n=len(shared))
    absent = [label for label in ("white >= gray", "gray >= black") if label not in seen]
    found.missing = f"not compared: {', '.join(absent)}" if absent else ""
    return found


def _detectors(evidence: Evidence, model: str) -> list[str]:
    return list(dict.fromkeys(n for r in evidence.study() if r.model == model for n in r.watched))


def _harm(
    evidence: Evidence, model: str, ball: tuple[str, float], detector: str, names: tuple[str, ...]
) -> dict[int, bool] | None:
    """By image: misclassified, unflagged and inside the ball, under any attack; None where there is no run."""
    harm: dict[int, bool] = {}
    for run in evidence.study():
        watched = run.watched.get(detector)
        if run.model != model or run.threat not in names or watched is None or run.lean:
            continue
        if run.ball is not None and run.ball != ball:
            continue
        levels = [
            t for _, t in sorted(watched.thresholds.items(), key=lambda p: -float(p[0])) if t is not None
        ]
        if not levels:
            continue
        distance = run.l2 if ball[0] == "l2" else run.linf
        inside = distance <= ball[1] * (1 + ROUNDING) + ROUNDING
        hit = run.fooled & (watched.adversarial <= levels[0]) & inside
        for image, struck in zip(run.index.tolist(), hit.tolist(), strict=True):
            harm[image] = harm.get(image, False) or struck
    return harm or None


def gradients(evidence: Evidence) -> Finding:
    """(8) Gradients are there, finite, the same each time, and the loss does not hide them."""
    found = Finding()
    for model in evidence.models.values():
        if model.gradients:
            found.judge(model.title, _masked(model.gradients), **model.gradients)
    for run in evidence.study():
        _run_gradients(evidence, run, found)
    return found


def _masked(told: Mapping[str, Any]) -> str:
    scores = told.get("scores_nondeterministic", {})
    restless = [name for name, differ in scores.items() if differ > NONDETERMINISM]
    if told.get("nan", 0):
        return f"{told['nan']} of {told['images']} gradients are not finite"
    if told.get("zero", {}).get("margin", 0.0) > ZERO:
        return f"the margin's gradient is zero for {told['zero']['margin']:.0%} of the clean images"
    if told.get("nondeterministic", 0.0) > NONDETERMINISM:
        return "two equal passes give different logits: attack the mean of several"
    return f"{', '.join(restless)}: two equal passes give different scores" if restless else ""


def _run_gradients(evidence: Evidence, run: Run, found: Finding) -> None:
    passes, n = int(run.passes.sum()), len(run.index)
    zero = int(run.zero_gradients.sum()) / passes if passes else 0.0
    unchanged, failures = run.facts.get("unchanged", 0), int((~run.fooled).sum())
    fault = ""
    if zero > ZERO and not run.lean:
        fault = f"{zero:.0%} of its gradients are zero: use loss=margin"
    if unchanged > UNCHANGED * failures and unchanged >= max(1.0, EXCEPTIONS * n) and not run.lean:
        fault = f"{unchanged} of {failures} failures are the clean images, untouched"
    numbers = {"zero": zero, "unchanged": unchanged, "failures": failures}
    for probe in evidence.probes("margin", run):
        own, other = common(run, probe)
        lead = share(other) - share(own)
        numbers |= {"success": share(own), "with_margin_loss": share(other)}
        if lead >= EXCEPTIONS:
            fault = f"the margin loss is better by {lead:.1%}: its own loss saturates"
    if run.lean:
        found.skip(f"{run.name}: declared lean")
    found.judge(name_of(evidence, run), fault, **numbers)


def validity(evidence: Evidence) -> Finding:
    """(9) Images inside box and ball, successes that a fresh pass confirms, also in eight bits."""
    found = Finding()
    for run in evidence.study():
        facts = run.facts
        if "outside_box" not in facts:
            continue
        kept = max(facts["rounded"]["fooled"], facts["rounded_directed"]["fooled"])
        n, fooled = facts["n"], facts["rounded"]["n"]
        fault = ""
        if fooled and 1 - kept / fooled > FRAGILE:
            fault = f"{fooled - kept} of {fooled} successes do not survive rounding to 8 bits"
        if facts["claims_wrong"] / n >= EXCEPTIONS:
            fault = f"{facts['claims_wrong']} of {n} recorded outcomes are not what a fresh pass says"
        if facts["outside_ball"]:
            fault = f"{facts['outside_ball']} of {n} images lie outside the attack's radius"
        if facts["outside_box"]:
            fault = f"{facts['outside_box']} of {n} images lie outside [0, 1]"
        found.judge(name_of(evidence, run), fault, **{k: v for k, v in facts.items() if k != "noise"})
    return found


def disjoint(evidence: Evidence) -> Finding:
    """(10) Nothing was chosen on test images; the thresholds' alarms are as frequent as they promise."""
    found = Finding()
    for model in evidence.models.values():
        if model.splits:
            parts = {"shared_train": "training", "shared_validation": "validation"}
            shared = [
                name for key, name in parts.items() if model.splits[key] >= EXCEPTIONS * model.splits["test"]
            ]
            fault = f"test images are among the {' and '.join(shared)} images" if shared else ""
            found.judge(f"{model.title}, images", fault, **model.splits)
    trials = list(_alarms(evidence))
    for what, told in trials:
        tail = FAMILY / len(trials) / 2
        a, b = told["allowed"] + 1, told["m"] - told["allowed"]
        low, high = (int(betabinom.ppf(q, told["n"], a, b)) for q in (tail, 1 - tail))
        bad = not low <= told["flagged"] <= high
        fault = (
            f"{told['flagged']} of {told['n']} clean test images are flagged, {low} to {high} expected"
            if bad
            else ""
        )
        found.judge(what, fault, **told, low=low, high=high)
    return found


def _alarms(evidence: Evidence) -> Iterator[tuple[str, dict[str, Any]]]:
    for model in evidence.models.values():
        for detector, rates in model.alarms.items():
            for fpr, told in rates.items():
                yield f"{model.title}, {detector} at {float(fpr):.0%}", dict(told)


def counts(evidence: Evidence) -> Finding:
    """(11) Every image is accounted for, nothing rests on few, and the worst case is told."""
    found = Finding()
    for run in evidence.study():
        missing, n = run.expected - len(run.index.unique()), len(run.index)
        fault = f"only {n} images were attacked: {LEAST} are the least" if n < LEAST else ""
        if missing:
            fault = f"{missing} of {run.expected} images are missing: failures were dropped"
        found.judge(
            name_of(evidence, run), fault, attacked=n, expected=run.expected, candidates=run.candidates
        )
    claimed = [
        r for r in evidence.rows if r["status"] == "ok" and str(r["metric"]).startswith(("auc", "joint_"))
    ]
    few = [r for r in claimed if r["n"] is None or r["n"] < LEAST]
    bare = [r for r in claimed if r["ci_low"] is None or r["ci_high"] is None]
    fault = f"{len(few)} values rest on fewer than {LEAST} images" if few else ""
    fault = f"{len(bare)} values have no interval" if bare else fault
    found.judge("values", fault, claimed=len(claimed), few=len(few), without_interval=len(bare))
    censored = sum(
        r["metric"] == "success_rate" and r["value"] is not None and r["value"] < 1 for r in evidence.rows
    )
    found.judge("censored", "", attacks=censored, worst_case=_worst(evidence))
    lost = len(evidence.failed)
    found.judge("failures", f"{lost} computations failed" if lost else "", failed=evidence.failed)
    return found


def _worst(evidence: Evidence) -> dict[str, float]:
    """By model and threat, the share of images that any attack got through with, on those that all attacked."""
    groups: dict[str, list[Run]] = {}
    for run in evidence.study():
        groups.setdefault(f"{evidence.models[run.model].title}, {run.threat}", []).append(run)
    return {name: share(torch.stack(common(*runs)).any(dim=0)) for name, runs in groups.items()}


def selftest(evidence: Evidence) -> Finding:
    """(12) Each attack finds what is known to be there; no claim beats what anyone has reached."""
    found = Finding()
    by_key = {run.key: run for run in evidence.study()}
    for model in evidence.models.values():
        for key, told in model.selftest.items():
            run = by_key[key]
            if run.lean:
                found.skip(f"{run.name}: declared lean")
            found.judge(name_of(evidence, run), "" if run.lean else _blind(run, told), **told)
    if not found.numbers:
        return found
    for what, claim, known in _claims(evidence):
        if known is None:
            found.skip(f"{what}: no robust accuracy is known for this data at so small a radius")
            continue
        bad = claim > known["accuracy"]
        fault = (
            f"implausible: {claim:.1%} claimed, the best known at half the radius is {known['accuracy']:.1%}"
            if bad
            else ""
        )
        found.judge(what, fault, claimed=claim, **known)
    return found


def _blind(run: Run, told: Mapping[str, Any]) -> str:
    known, hidden = told["known"], told.get("hidden")
    if known["rate"] < known["expected"] - EXCEPTIONS - 1 / known["n"]:
        return f"succeeds on {known['rate']:.0%} of a linear model's images, where {known['expected']:.0%} can be"
    if hidden and hidden["n"] and several_steps(run) and hidden["found"] < FOUND * hidden["n"]:
        return f"finds {hidden['found']} of {hidden['n']} adversarial images that are known to be there"
    return ""


def _claims(evidence: Evidence) -> Iterator[tuple[str, float, dict[str, Any] | None]]:
    """Robust accuracy with rejection against the study's white boxes, and what is known at half the radius."""
    table = json.loads(KNOWN.read_text(encoding="utf-8"))
    for key, model in evidence.models.items():
        runs = [r for r in evidence.study() if r.model == key and r.threat == "white_box" and r.ball]
        for ball in dict.fromkeys(r.ball for r in runs if r.ball):
            for detector in _detectors(evidence, key):
                harm = _harm(evidence, key, ball, detector, ("white_box",))
                own = [r for r in runs if r.ball == ball and detector in r.watched]
                if harm is None or not own:
                    continue
                claim = sum(not struck for struck in harm.values()) / max(r.candidates for r in own)
                data = table["same_as"].get(model.data, model.data)
                rows = [
                    row
                    for row in table["known"]
                    if (row["data"], row["norm"]) == (data, ball[0]) and row["eps"] <= ball[1] / 2 + 1e-9
                ]
                best = min(rows, key=lambda row: row["accuracy"], default=None)
                yield f"{model.title}, {detector} at {ball[0]} {ball[1]:g}", claim, best
