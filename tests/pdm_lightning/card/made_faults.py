"""Evidence that is broken in one respect; read with runpy."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from pdm_lightning.card import CHECKS, Check, judge
from pdm_lightning.card.evidence import Evidence, Watched

M = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("made_evidence.py"))))
Change = Callable[[Evidence], Evidence]
first, change, facts, known_of = M.first, M.change, M.change_facts, M.change_model


def check(evidence: Evidence, name: str) -> Check:
    (found,) = judge(evidence, {name: CHECKS[name]}).checks
    return found


def constant(evidence: Evidence) -> Evidence:
    """A detector that says the same of every image."""
    score = torch.zeros(M.N, dtype=torch.float64)
    same = {"KDE": Watched(score, score, score, {"0.05": 0.0})}
    return replace(evidence, runs=[replace(r, watched=same) if r.watched else r for r in evidence.runs])


def selftest(key: str, part: str, **told: Any) -> Change:
    def changed(evidence: Evidence) -> Evidence:
        tests = evidence.models["m"].selftest
        tests = {**tests, key: {**tests[key], part: {**tests[key][part], **told}}}
        return known_of(selftest=tests)(evidence)

    return changed


def idle_white_box(evidence: Evidence) -> Evidence:
    return change("selective", fooled=first(20), success=first(20), facts={})(evidence)


def indices(count: int) -> dict[str, torch.Tensor]:
    return {"index": torch.arange(M.N) % count}


def nearest(l2: float, doubled: float, inside: int = 0, failures: float | None = None) -> Any:
    """C&W, which all but ten images fall to, and at twice its length: median distances, and how many come nearer."""
    attack = {"_target_": "attacks.CarliniWagner", "max_iterations": 1000}
    runs = M.run("cw", attack, 190, 150), M.run("cw doubled", attack, 190, role="doubled", of="cw")
    linf = torch.full((200,), 0.3)
    own, probe = (
        replace(run, l2=torch.full((200,), far), linf=linf)
        for run, far in zip(runs, (l2, doubled), strict=True)
    )
    probe = replace(probe, linf=torch.where(first(inside), torch.tensor(0.1), linf))
    if failures is not None:
        probe = replace(probe, l2=torch.where(first(190), probe.l2, torch.tensor(failures)))
    return own, probe


ALARMS = {"flagged": 52, "n": 1000, "allowed": 50, "m": 1000}

#: The check, what breaks the evidence, and what the card says.
BROKEN: dict[str, tuple[str, Change, str]] = {
    "an image withstands": (
        "unbounded",
        change("unbounded 1", fooled=first(199)),
        "1 of 200 images withstand every unbounded attack",
    ),
    "an image withstands on classifier and detector": (
        "unbounded",
        change("unbounded 3", success=first(199)),
        "digits ce, past KDE: 1 of 200 images withstand every unbounded attack",
    ),
    "an unbounded attack of the study reaches nothing": (
        "unbounded",
        lambda e: M.add(M.run("mine", M.NEAREST_JOINT, 200, 0, threat="white_box", needs=M.ALL))(e),
        "past KDE: mine alone reaches 0%, unbounded",
    ),
    "an unbounded attack that takes no gradient": (
        "unbounded",
        lambda e: M.add(replace(M.run("mine", M.NEAREST, 0, 0), passes=torch.zeros(200)))(e),
        "digits ce: mine alone reaches 0%",
    ),
    "success falls": ("monotone", change("bim wider", fooled=first(178)), "success falls by 2 of 200"),
    "success falls between the study's own": (
        "monotone",
        M.add(M.run("bim small", M.BIM | {"eps": 0.1, "step": 0.01}, 182, 150)),
        "eps 0.1 to 0.2: success falls by 2 of 200",
    ),
    "one step is stronger": (
        "iterated",
        change("bim one step", fooled=first(182)),
        "fools 2 of 200 images more",
    ),
    "not converged": ("converged", change("bim doubled", fooled=first(182)), "success of 2 of 200"),
    "not converged, joint": (
        "converged",
        change("selective doubled", success=first(172)),
        "white_box, selective: twice",
    ),
    "more restarts find more": (
        "converged",
        change("selective restarts", success=first(172)),
        "selective, restarts: twice the restarts change the success of 2 of 200",
    ),
    "twice as long comes nearer": (
        "converged",
        lambda e: M.add(*nearest(2.0, 1.96))(e),
        "twice the iterations change the median distance from 2 to 1.96",
    ),
    "twice as long comes into the ball": (
        "converged",
        lambda e: M.add(*nearest(2.0, 2.0, inside=2))(e),
        "twice the iterations change the success inside linf 0.2 of 2 of 200",
    ),
    "white box is weaker": (
        "threats",
        change("bim", watched={"KDE": M.watched(172)}),
        "white box >= gray box: 2 of 200 images fall to who knows less alone: selective",
    ),
    "gray box is weaker": (
        "threats",
        change("carried", fooled=first(152), watched={"KDE": M.watched(152)}),
        "gray box >= black box: 2 of 200",
    ),
    "gradients lose": (
        "gradient_free",
        change("bim square", fooled=first(182)),
        "without gradients 2 of 200 images more fall",
    ),
    "gradients lose, joint": (
        "gradient_free",
        change("selective square", success=first(172)),
        "white_box, selective square",
    ),
    "no more than noise": (
        "noise",
        facts("fgsm", noise={"fooled": 120, "n": 200}),
        "noise of the same size fools 120 of 200 images, the attack 120",
    ),
    "no more than noise, where both do little": (
        "noise",
        lambda e: facts("fgsm", noise={"fooled": 2, "n": 200})(change("fgsm", fooled=first(1))(e)),
        "fools 2 of 200 images, the attack 1: it is broken",
    ),
    "carries over no better than noise": (
        "noise",
        lambda e: facts("carried", noise={"fooled": 3, "n": 200})(change("carried", fooled=first(3))(e)),
        "fools 3 of 200 images, the attack 3",
    ),
    "zero gradients at clean images": (
        "gradients",
        known_of(gradients=M.GRADIENTS | {"zero": {"ce": 0.0, "margin": 0.125}}),
        "zero for 12% of the clean",
    ),
    "NaN": ("gradients", known_of(gradients=M.GRADIENTS | {"nan": 1}), "of 1 of 64 images are not finite"),
    "two passes differ": (
        "gradients",
        known_of(gradients=M.GRADIENTS | {"nondeterministic": 2e-4}),
        "differ by 0.0002",
    ),
    "two scores differ": (
        "gradients",
        known_of(gradients=M.GRADIENTS | {"scores_nondeterministic": {"KDE": 0.1}}),
        "KDE: two equal passes give different scores",
    ),
    "zero gradients on the way": (
        "gradients",
        change("bim", zero_gradients=torch.full((200,), 5)),
        "12% of its gradients are zero",
    ),
    "nothing was changed": ("gradients", facts("bim", unchanged=3), "3 of 20 failures are the clean images"),
    "a loss that saturates": (
        "gradients",
        change("bim margin", fooled=first(182)),
        "with the margin loss 2 of 200 images more fall",
    ),
    "a loss that saturates, in one step": (
        "gradients",
        lambda e: M.add(M.run("fgsm margin", M.FGSM, 122, role="margin", of="fgsm"))(e),
        "2 of 200 images more fall to the same single step",
    ),
    "outside the box": ("validity", facts("bim", outside_box=1), "1 of 200 images lie outside [0, 1]"),
    "outside the ball": ("validity", facts("bim", outside_ball=1), "1 of 200 images lie outside the radius"),
    "wrong claims": ("validity", facts("bim", claims_wrong=2), "2 of 200 recorded outcomes"),
    "fragile, jointly": (
        "validity",
        facts("selective", rounded_joint={"held": 160, "n": 170}),
        "10 of 170 joint successes do not survive rounding to 8 bits",
    ),
    "distances that are not those of the images": (
        "validity",
        facts("bim", recorded_distance_error=1e-4),
        "recorded distances are off by up to 0.0001",
    ),
    "fragile": (
        "validity",
        facts("bim", rounded={"fooled": 100, "n": 180}, rounded_directed={"fooled": 170, "n": 180}),
        "10 of 180 successes do not survive",
    ),
    "shared with train": (
        "disjoint",
        known_of(splits=M.SPLITS | {"shared_train": 11}),
        "of 1000 test images 11 are training images",
    ),
    "shared with validation": (
        "disjoint",
        known_of(splits=M.SPLITS | {"shared_validation": 900}),
        "900 are validation images",
    ),
    "validation in train": (
        "disjoint",
        known_of(splits=M.SPLITS | {"validation_in_train": 11}),
        "11 of 1000 validation images are training images",
    ),
    "too many alarms": (
        "disjoint",
        known_of(alarms={"KDE": {"0.05": ALARMS | {"flagged": 90}}}),
        "90 of 1000 clean test images are flagged, ",
    ),
    "too few alarms": (
        "disjoint",
        known_of(alarms={"KDE": {"0.05": ALARMS | {"flagged": 10}}}),
        "10 of 1000 clean test images are flagged, ",
    ),
    "constant detector": ("disjoint", constant, "gives all 1600 images one score"),
    "dropped failures": (
        "counts",
        change("bim", expected=210),
        "10 images are missing: failures were dropped",
    ),
    "an image twice": ("counts", change("carried", **indices(190)), "10 of 200 rows repeat an image"),
    "no interval": (
        "counts",
        M.change_rows(M.row("auc_all", ci_low=None)),
        "1 have no interval (ce bim kde auc_all)",
    ),
    "few images": (
        "counts",
        M.change_rows(M.row("joint_success@0.01", n=49)),
        "1 rest on fewer than 50 images",
    ),
    "a rate of few that is no AUC": (
        "counts",
        M.change_rows(M.row("transfer_rate", n=12)),
        "1 rest on fewer than 50 images (ce bim kde transfer_rate)",
    ),
    "a rate that nobody has thought of": (
        "counts",
        M.change_rows(M.row("joint_accuracy@0.05", ci_high=None), M.row("mine", ci_high=None)),
        "2 have no interval (ce bim kde joint_accuracy@0.05)",
    ),
    "fewer tried than asked for": (
        "counts",
        change("bim", candidates=210),
        "210 test images tried by its own account, 220 by its settings",
    ),
    "a distance alone": (
        "counts",
        M.change_rows(M.row("distortion", 0.1, attack="cw")),
        "1 stand without a success rate (ce cw kde distortion)",
    ),
    "a failure": ("counts", lambda e: replace(e, failed=["craft x"]), "1 computation failed: craft x"),
    "blind on a linear model": (
        "selftest",
        selftest("bim", "known", rate=0.97),
        "97.0% of 100 images of a linear model, where 100.0% fall",
    ),
    "lean, of a wrong sign": (
        "selftest",
        lambda e: change("bim", lean=True)(selftest("bim", "known", rate=0.0, nearer=0.4)(e)),
        "it lowers the margin of 40% of 100 images",
    ),
    "blind to the hidden": ("selftest", selftest("bim", "hidden", found=15), "finds 15 of 16"),
    "implausible": ("selftest", idle_white_box, "implausible: 81.8% claimed, 75.3% is the best known"),
}
#: What is broken in a way that other checks see too.
SEEN_BY_OTHERS = {
    "constant detector": {"threats", "disjoint"},
    "implausible": {"selftest", "threats", "converged", "gradient_free"},
    "gray box is weaker": {"threats", "iterated"},
    "carries over no better than noise": {"noise"},
    # it also changes nothing, or does less than noise: other checks see that
    "an unbounded attack that takes no gradient": {"unbounded", "noise"},
}
