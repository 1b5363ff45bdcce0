"""Evidence that is harmlessly odd, or not there, beside what is broken; read with runpy."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pdm_lightning.card.evidence import Evidence, Watched

FAULTS = runpy.run_path(str(Path(__file__).with_name("made_faults.py")))
Change = Callable[[Evidence], Evidence]
M, ALARMS, BROKEN, SEEN_BY_OTHERS, check, idle_white_box, nearest, selftest = (
    FAULTS[name]
    for name in (
        *("M", "ALARMS", "BROKEN", "SEEN_BY_OTHERS"),
        *("check", "idle_white_box", "nearest", "selftest"),
    )
)
first, change, facts, known_of = M.first, M.change, M.change_facts, M.change_model

#: Just inside the tolerance, or outside what a check judges.
HARMLESS: dict[str, tuple[str, Change]] = {
    "one of 200 is half a percent": ("monotone", change("bim wider", fooled=first(179))),
    "one exception": ("threats", change("bim", watched={"KDE": M.watched(171)})),
    "half a percent nearer": ("converged", lambda e: M.add(*nearest(2.0, 1.99, inside=1))(e)),
    "the distance of failures": ("converged", lambda e: M.add(*nearest(2.0, 2.0, failures=1.0))(e)),
    "a lean attack has not converged": (
        "converged",
        lambda e: change("bim", lean=True)(change("bim doubled", fooled=first(199))(e)),
    ),
    "a capped attack has not converged": (
        "converged",
        lambda e: change("bim", capped="5 of 40 iterations")(change("bim doubled", fooled=first(199))(e)),
    ),
    "a lean attack prefers another loss": (
        "gradients",
        lambda e: change("bim", lean=True)(change("bim margin", fooled=first(199))(e)),
    ),
    "no attack": (
        "gradients",
        lambda e: M.add(idle())(e),
    ),
    "no attack leaves every image standing": ("unbounded", lambda e: M.add(idle())(e)),
    "one step carries over better": ("iterated", lambda e: M.add(carried_bim())(e)),
    "an attack whose length has another name": (
        "iterated",
        lambda e: M.add(M.run("apgd", M.APGD, 180, 150))(e),
    ),
    "an unbounded attack of the study misses a few": (
        "unbounded",
        lambda e: M.add(M.run("mine", M.NEAREST, 190, 150))(e),
    ),
    "the same attack in gray and white box": (
        "threats",
        lambda e: change("bim", also=frozenset({"white_box"}))(e),
    ),
    "another detector": ("monotone", lambda e: M.add(other_detector())(e)),
    "noise fools one by chance": (
        "noise",
        lambda e: facts("fgsm", noise={"fooled": 1, "n": 200})(change("fgsm", fooled=first(1))(e)),
    ),
    "the better rounding counts": ("validity", facts("bim", rounded={"fooled": 0, "n": 180})),
    "eight joint successes of 170 are lost": (
        "validity",
        facts("selective", rounded_joint={"held": 162, "n": 170}),
    ),
    "distances within rounding": ("validity", facts("bim", recorded_distance_error=3e-5)),
    "one percent of the validation images": (
        "disjoint",
        known_of(splits=M.SPLITS | {"validation_in_train": 10}),
    ),
    "one of a handful is lost": (
        "validity",
        facts("bim", rounded={"fooled": 1, "n": 2}, rounded_directed={"fooled": 0, "n": 2}),
    ),
    "ties at the threshold flag fewer": (
        "disjoint",
        lambda e: known_of(alarms={"KDE": {"0.05": ALARMS | {"flagged": 10}}})(tied(e)),
    ),
    "a lean attack is blind": (
        "selftest",
        lambda e: change("bim", lean=True)(selftest("bim", "known", rate=0.1)(e)),
    ),
    "a lean attack reaches nothing, but goes the right way": (
        "selftest",
        lambda e: change("bim", lean=True)(selftest("bim", "known", rate=0.0, nearer=0.9)(e)),
    ),
    "a distance far outside the ball": ("threats", lambda e: M.add(far_away())(e)),
}


def idle() -> Any:
    none = M.run("none", {"_target_": "attacks.NoAttack"}, 0, 0)
    told = none.facts | {"unchanged": 200, "noise": {"fooled": 0, "n": 200}}
    return replace(none, passes=torch.zeros(200, dtype=torch.int64), facts=told)


def carried_bim() -> Any:
    """Stronger than FGSM on its surrogate, weaker on the target."""
    return replace(M.run("carried bim", M.BIM, 40, 30, threat="transfer"), success=first(190))


def other_detector() -> Any:
    """A larger ball, against a detector that is harder to pass."""
    run = M.run("other", M.SELECTIVE | {"eps": 0.4}, 100, 80, threat="white_box", needs=M.ALL)
    return replace(run, watched={"LID": run.watched["KDE"]})


def far_away() -> Any:
    """Fools everyone from where the ball does not reach."""
    run = M.run("nearest", M.NEAREST, 200, 200)
    return replace(run, linf=torch.full((200,), 0.3))


def tied(evidence: Evidence) -> Evidence:
    """A tenth of the clean images lie on the threshold."""

    def shifted(watched: Watched) -> Watched:
        return replace(watched, clean=torch.where(first(20), torch.ones(200).double(), watched.clean))

    runs = [replace(r, watched={k: shifted(w) for k, w in r.watched.items()}) for r in evidence.runs]
    return replace(evidence, runs=runs)


#: What is left out, so that a check has nothing to judge.
ABSENT: dict[str, tuple[str, Change]] = {
    "no unbounded attack": ("unbounded", M.without("unbounded 1", "unbounded 2", "unbounded 3")),
    "one size": ("monotone", M.without("bim wider")),
    "no single step": ("iterated", M.without("fgsm", "bim one step", "carried")),
    "not doubled": ("converged", M.without("bim doubled", "selective doubled", "selective restarts")),
    "no white box": ("threats", M.without("selective")),
    "no black box": ("threats", M.without("carried")),
    "gradients alone": ("gradient_free", M.without("bim square", "selective square")),
    "no noise": ("noise", lambda e: replace(e, runs=[replace(r, facts={}) for r in e.runs])),
    "no images looked at": ("validity", lambda e: replace(e, runs=[replace(r, facts={}) for r in e.runs])),
    "splits not counted": ("disjoint", known_of(splits={})),
    "not self-tested": ("selftest", known_of(selftest={})),
}
