"""Checks 1 to 4, 6 and 7: is an attack as strong as its kind has to be?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import (
    EXCEPTIONS,
    common,
    name_of,
    places,
    rate,
    several_steps,
    share,
    union,
    without_gradient,
)
from pdm_lightning.card.evidence import STUDY, Evidence, Run


def unbounded(evidence: Evidence) -> Finding:
    """(1) Without a bound, every image falls: else gradients are masked, or the attack is broken."""
    found = Finding()
    for key, model in evidence.models.items():
        own = [r for r in evidence.study() if r.model == key and r.ball is None and not r.lean]
        probes = [r for r in evidence.probes("unbounded") if r.model == key]
        runs = [r for r in (*probes, *own) if r.threat == "gray_box"]
        if not runs:
            continue
        fallen = union(runs)
        fault = "" if fallen.all() else f"{int((~fallen).sum())} of {len(fallen)} images withstand every one"
        by_attack = {f"{r.name} {r.attack.get('_target_', '')}": rate(r) for r in runs}
        found.judge(model.title, fault, fallen=share(fallen), n=len(fallen), attacks=by_attack)
    return found


def monotone(evidence: Evidence) -> Finding:
    """(2) A larger ball holds the smaller one: success must not fall as eps grows."""
    found = Finding()
    for run in evidence.study():
        others = evidence.probes("wider", run)
        if run.ball and not several_steps(run):
            found.skip(f"{run.name}: a single step may overshoot")
        if not others or not run.ball:
            continue
        line = sorted([run, *others], key=lambda one: one.ball[1] if one.ball else 0.0)
        for small, large in pairwise(line):
            before, after = common(small, large)
            drop = share(before) - share(after)
            fault = "" if drop < EXCEPTIONS else f"success falls by {drop:.1%} as eps grows"
            sizes = [one.ball[1] for one in (small, large) if one.ball]
            what = f"{name_of(evidence, run)}, eps {sizes[0]:g} to {sizes[1]:g}"
            found.judge(what, fault, smaller=share(before), larger=share(after), n=len(before))
    return found


def iterated(evidence: Evidence) -> Finding:
    """(3) Many steps reach at least what one step reaches in the same ball."""
    found = Finding()
    for one, many in _pairs(evidence):
        single, iterative = common(one, many)
        lead = share(single) - share(iterative)
        fault = "" if lead < EXCEPTIONS else f"one step is stronger by {lead:.1%}"
        what = f"{name_of(evidence, many)} against {one.name}"
        found.judge(what, fault, one_step=share(single), iterated=share(iterative), n=len(single))
    return found


def _pairs(evidence: Evidence) -> Iterator[tuple[Run, Run]]:
    """A one-step run and an iterated one with gradients, in one ball on one model; a study's own among them."""
    kept = [r for r in evidence.runs if r.role in (STUDY, "one_step", "iterated") and r.ball]
    for many in kept:
        if not several_steps(many) or without_gradient(many):
            continue
        for one in kept:
            same = (one.model, one.threat, one.ball) == (many.model, many.threat, many.ball)
            if same and not several_steps(one) and STUDY in (one.role, many.role):
                yield one, many


def converged(evidence: Evidence) -> Finding:
    """(4) Twice the iterations change nothing: less than 1 % of the images."""
    found = Finding()
    for run in evidence.study():
        if not several_steps(run):
            continue
        if run.lean or run.capped:
            found.skip(f"{run.name}: {'declared lean' if run.lean else f'capped, {run.capped}'}")
            continue
        for probe in evidence.probes("doubled", run):
            before, after = common(run, probe)
            change = abs(share(after) - share(before))
            fault = "" if change < EXCEPTIONS else f"twice the iterations change success by {change:.1%}"
            what = name_of(evidence, run)
            found.judge(what, fault, success=share(before), doubled=share(after), n=len(before))
    return found


def gradient_free(evidence: Evidence) -> Finding:
    """(6) Who has gradients does at least as well as who has not, in the same ball."""
    found = Finding()
    for model, threat in places(evidence):
        runs = [r for r in evidence.runs if (r.model, r.threat) == (model, threat) and r.ball]
        free = [r for r in runs if without_gradient(r)]
        for blind in free:
            seeing = [
                r
                for r in runs
                if r.ball == blind.ball
                and not without_gradient(r)
                and several_steps(r)
                and ("detector" in r.needs) == ("detector" in blind.needs)
            ]
            if not seeing:
                continue
            theirs, *ours = common(blind, *seeing)
            best = torch.stack(ours).any(dim=0)
            lead = share(theirs) - share(best)
            fault = "" if lead < EXCEPTIONS else f"it is stronger than gradients by {lead:.1%}"
            found.judge(
                f"{name_of(evidence, blind)}, {blind.ball}",
                fault,
                gradient_free=share(theirs),
                gradients=share(best),
                n=len(best),
            )
    return found


def noise(evidence: Evidence) -> Finding:
    """(7) Random noise of the same size does less harm; and does the detector merely detect noise?"""
    found = Finding()
    for run in evidence.study():
        told = run.facts.get("noise")
        if not told:
            continue
        fooled = int(run.fooled.sum())
        worse = told["fooled"] >= fooled and told["fooled"] > 0
        fault = f"noise fools {told['fooled']} images, the attack {fooled}" if worse else ""
        areas = {
            name: {
                "adversarial_against_noise": auc(w.noise[run.fooled], w.adversarial[run.fooled]),
                "noise_against_clean": auc(w.clean[run.fooled], w.noise[run.fooled]),
            }
            for name, w in run.watched.items()
            if w.noise is not None
        }
        numbers = {"noise": told["fooled"] / told["n"], "attack": fooled / told["n"], "n": told["n"]}
        found.judge(name_of(evidence, run), fault, **numbers, auc=areas)
    return found


def auc(negative: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve from ranks, ties one half; None without scores on both sides."""
    n, m = len(negative), len(positive)
    if not n or not m:
        return None
    ranks = rankdata(np.r_[negative.numpy(), positive.numpy()])
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))
