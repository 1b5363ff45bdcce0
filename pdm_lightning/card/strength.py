"""Checks 1 to 3 and 6: is an attack as strong as its kind has to be?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import (
    SURROGATE,
    aim,
    ball_name,
    class_of,
    common,
    excuse,
    held,
    hits,
    lead,
    name_of,
    setting,
    share,
    tolerable,
    union,
    without_gradient,
)
from pdm_lightning.card.evidence import STUDY, Evidence, Run

ALONE = 0.95
"""Share of the images that an unbounded attack of the study has to reach by itself."""


def unbounded(evidence: Evidence) -> Finding:
    """(1) Without a bound, every image falls: else gradients are masked, or the attack is broken.

    Attacks are taken together where they have the same target: the classifier alone, or it and certain detectors.
    """
    found, groups = Finding(), dict[tuple[str, str, tuple[str, ...]], list[Run]]()
    for run in evidence.runs:
        if _unbounded(run, found):
            groups.setdefault((run.model, held(run), aim(evidence, run)), []).append(run)
    for (model, _, detectors), runs in groups.items():
        what = evidence.models[model].title + (f", past {' and '.join(detectors)}" if detectors else "")
        fallen = union(runs)
        if not len(fallen):
            found.skip(f"{what}: no image that all unbounded attacks attacked")
            continue
        withstood, faults = int((~fallen).sum()), _short_of_all(runs)
        if withstood:
            mend = "gradients are masked; try attack.loss=margin or an attack without gradients"
            withstand = f"{withstood} of {len(fallen)} images withstand every unbounded attack"
            faults = [f"{withstand}: {mend}", *faults]
        by_attack = {f"{run.name} ({class_of(run)})": share(hits(run)) for run in runs}
        found.judge(what, "; ".join(faults), fallen=share(fallen), n=len(fallen), attacks=by_attack)
    return found


def _short_of_all(runs: list[Run]) -> list[str]:
    """Attacks of the study that the others make up for."""
    return [
        f"{run.name} alone reaches {share(hits(run)):.0%}, unbounded: it is broken, or too weak to tell anything"
        for run in runs
        if run.role == STUDY and share(hits(run)) < ALONE
    ]


def _unbounded(run: Run, found: Finding) -> bool:
    """Whether a run has to reach every image, if not alone."""
    if run.role != STUDY:
        return run.role == "unbounded"
    # what works on a surrogate never saw the model; one step is no search; JSMA's steps bound the pixels it changes
    limited = run.threat in SURROGATE or run.single_step or "max_steps" in run.attack
    if run.ball is not None or limited:
        return False
    if run.lean or run.capped:
        found.skip(f"{run.name}: {excuse(run)}")
        return False
    return True


def monotone(evidence: Evidence) -> Finding:
    """(2) A larger ball holds the smaller one: success must not fall as eps grows."""
    found = Finding()
    families: dict[tuple[object, ...], list[Run]] = {}
    for run in evidence.runs:
        if run.role not in (STUDY, "wider") or run.ball is None:
            continue
        if run.single_step:
            found.skip(f"{run.name}: a single step may overshoot")
        else:
            families.setdefault(_family(evidence, run), []).append(run)
    for runs in families.values():
        _compare_sizes(evidence, sorted(runs, key=_radius), found)
    return found


def _radius(run: Run) -> float:
    return run.ball[1] if run.ball else 0.0


def _family(evidence: Evidence, run: Run) -> tuple[object, ...]:
    """Model, threat, goal and all parameters but those that go with the size of the ball."""
    sized = ("eps", "step", "name", "label")
    rest = sorted((key, repr(value)) for key, value in run.attack.items() if key not in sized)
    return run.model, held(run), aim(evidence, run), tuple(rest)


def _compare_sizes(evidence: Evidence, line: list[Run], found: Finding) -> None:
    for small, large in combinations(line, 2):
        before, after = common(small, large)
        if _radius(small) == _radius(large) or not len(before):
            continue
        drop, n = lead(before, after), len(before)
        own = next((run for run in line if run.role == STUDY), large)
        fault = f"success falls by {drop} of {n} images: let attack.step grow with attack.eps"
        what = f"{name_of(evidence, own)}, eps {_radius(small):g} to {_radius(large):g}"
        numbers = {"smaller": share(before), "larger": share(after), "n": n}
        found.judge(what, "" if tolerable(drop, n) else fault, **numbers)


def iterated(evidence: Evidence) -> Finding:
    """(3) Many steps reach at least what one step reaches in the same ball."""
    found = Finding()
    for one, many in _pairs(evidence):
        single, iterative = common(one, many)
        ahead, n = lead(single, iterative), len(single)
        if not n:
            continue
        fault = f"a single step fools {ahead} of {n} images more: check sign, step and loss of the iterations"
        what = f"{name_of(evidence, many)} against {one.name}"
        numbers = {"one_step": share(single), "iterated": share(iterative), "n": n}
        found.judge(what, "" if tolerable(ahead, n) else fault, **numbers)
    return found


def _pairs(evidence: Evidence) -> Iterator[tuple[Run, Run]]:
    """A one-step run and an iterated one with gradients, in one ball: the study's own, or one of them and its probe."""
    kept = [run for run in evidence.runs if run.role in (STUDY, "one_step", "iterated") and run.ball]
    for many in kept:
        if many.single_step or without_gradient(many):
            continue
        for one in kept:
            related = one.role == many.role == STUDY or one.of == many.key or many.of == one.key
            same = setting(evidence, one) == setting(evidence, many)
            if related and same and one.single_step and one.passes.any():
                yield one, many


def gradient_free(evidence: Evidence) -> Finding:
    """(6) Who has gradients does at least as well as who has not, in the same ball."""
    found = Finding()
    kept = [run for run in evidence.runs if run.role in (STUDY, "iterated") and not run.single_step]
    for blind in evidence.runs:
        if blind.role not in (STUDY, "gradient_free") or not without_gradient(blind) or blind.ball is None:
            continue
        place = setting(evidence, blind)
        seeing = [run for run in kept if not without_gradient(run) and setting(evidence, run) == place]
        if not seeing:
            found.skip(f"{blind.name}: no iterated attack with gradients in {ball_name(blind.ball)}")
            continue
        theirs, *ours = common(blind, *seeing)
        best, n = torch.stack(ours).any(dim=0), len(theirs)
        ahead = lead(theirs, best)
        fault = f"without gradients {ahead} of {n} images more fall: gradients are masked or badly used"
        what = f"{name_of(evidence, blind)}, {ball_name(blind.ball)}"
        names = [run.name for run in seeing]
        numbers = {"gradient_free": share(theirs), "gradients": share(best), "n": n, "attacks": names}
        found.judge(what, "" if tolerable(ahead, n) else fault, **numbers)
    return found
