"""A study made by hand, sound in every respect, and the means to break it. Tests read it with ``runpy``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pdm_lightning.card.evidence import Evidence, Model, Run, Watched
from pdm_lightning.threat import lengths, single_step

N, CANDIDATES = 200, 220
ALL = frozenset({"logits", "detector", "detector_gradients"})
BIM = {"_target_": "attacks.BIM", "eps": 0.2, "step": 0.02, "iterations": 40, "loss": "margin"}
FGSM = {"_target_": "attacks.FGSM", "eps": 0.2, "loss": "margin"}
SQUARE = {"_target_": "attacks.ClassifierSquare", "norm": "linf", "eps": 0.2, "queries": 1000}
SELECTIVE = {"_target_": "attacks.SelectivePGD", "eps": 0.2, "norm": "linf", "iterations": 50, "restarts": 3}
APGD = {"_target_": "attacks.LibraryAttack", "norm": "linf", "eps": 0.2, "budget": 900, "options": {}}
NEAREST = {"_target_": "attacks.MinNorm", "norm": "l2"}
NEAREST_JOINT = {"_target_": "attacks.MinNormWhiteBox", "iterations": 120}
SPLITS = {"train": 5000, "validation": 1000, "test": 1000}
SPLITS |= {"shared_train": 3, "shared_validation": 0, "validation_in_train": 0}
GRADIENTS = {"images": 64, "zero": {"ce": 0.5, "margin": 0.0}, "nan": 0, "nondeterministic": 0.0}


def first(count: int, n: int = N) -> Tensor:
    """(n,) bool: the first `count` images."""
    return torch.arange(n) < count


def facts(fooled: int, n: int = N) -> dict[str, Any]:
    """What ``stages/validity.py`` and ``stages/noise.py`` say of a sound run."""
    rounded = {"fooled": fooled, "n": fooled}
    return {
        "n": n,
        "outside_box": 0,
        "outside_ball": 0,
        "largest_l2": 3.0,
        "largest_linf": 0.2,
        "recorded_distance_error": 1e-7,
        "claims_wrong": 0,
        "failures": n - fooled,
        "unchanged": 0,
        "rounded": rounded,
        "rounded_directed": rounded,
        "noise": {"fooled": 4, "n": n, "norm": "linf"},
    }


def watched(unflagged: int, n: int = N) -> Watched:
    """Scores of images of which the first `unflagged` pass a threshold of 1."""
    clean = torch.linspace(0, 0.9, n, dtype=torch.float64)
    adversarial = torch.where(first(unflagged, n), clean, clean + 2)
    return Watched(clean, adversarial, clean + 0.01, {"0.01": None, "0.05": 1.0})


def run(
    key: str, attack: Mapping[str, Any], fooled: int, unflagged: int | None = None, n: int = N, **more: Any
) -> Run:
    """A run whose first `fooled` images are misclassified, the first `unflagged` of them unflagged."""
    study = unflagged is not None
    joint = "detector" in more.get("needs", ())
    declared = {"single_step": single_step(attack), "length": tuple(lengths(attack))}
    return Run(
        key=key,
        model="m",
        name=key,
        attack=attack,
        index=torch.arange(n),
        fooled=first(fooled, n),
        success=first((unflagged or 0) if joint and study else fooled, n),
        l2=torch.full((n,), 3.0),
        linf=torch.full((n,), 0.2),
        zero_gradients=torch.zeros(n, dtype=torch.int64),
        passes=torch.full((n,), 40),
        candidates=CANDIDATES,
        tried=CANDIDATES,
        expected=n,
        watched={"KDE": watched(unflagged, n)} if unflagged is not None else {},
        facts=facts(fooled, n) if study else {},
        **({"threat": "gray_box", "role": "study"} | declared | more),
    )


def row(metric: str, value: float | None = 0.9, n: int | None = N, **more: Any) -> dict[str, Any]:
    """A row of ``results.csv``."""
    names = {"data": "digits", "model": "resnet8", "defense": "ce", "attack": "bim", "detector": "kde"}
    measured = {"metric": metric, "value": value, "n": n, "ci_low": 0.85, "ci_high": 0.95, "status": "ok"}
    return names | measured | {"n_attacked": N, "note": ""} | more


def runs() -> list[Run]:
    """The study's four attacks, and the probes of a whole card."""
    wider = BIM | {"eps": 0.4, "step": 0.04}
    white: dict[str, Any] = {"threat": "white_box", "needs": ALL}
    square: dict[str, Any] = {"threat": "white_box", "needs": frozenset({"logits", "detector"})}
    return [
        run("bim", BIM, 180, 150),
        run("fgsm", FGSM, 120, 100),
        run("selective", SELECTIVE, 190, 170, **white),
        run("carried", FGSM, 60, 50, threat="transfer"),
        run("unbounded 1", NEAREST, N, role="unbounded", of="bim"),
        run("unbounded 2", BIM | {"eps": 1.0}, 198, role="unbounded", of="bim"),
        run("unbounded 3", NEAREST_JOINT, N, N, role="unbounded", of="selective", **white),
        run("bim wider", wider, 198, role="wider", of="bim"),
        run("bim doubled", BIM | {"iterations": 80}, 181, role="doubled", of="bim"),
        run("bim margin", BIM, 180, role="margin", of="bim"),
        run("bim one step", FGSM, 120, role="one_step", of="bim"),
        run("bim square", SQUARE, 170, role="gradient_free", of="bim"),
        run(
            "selective doubled", SELECTIVE | {"iterations": 100}, 170, role="doubled", of="selective", **white
        ),
        run("selective restarts", SELECTIVE | {"restarts": 6}, 170, role="doubled", of="selective", **white),
        run("selective square", SQUARE, 160, role="gradient_free", of="selective", **square),
    ]


def sound() -> Evidence:
    """Evidence on which every check passes."""
    hidden = {"found": 16, "n": 16, "random": 1, "skipped": 0}
    known = {"rate": 1.0, "nearer": 1.0, "expected": 1.0, "n": 100}
    model = Model(
        key="m",
        title="digits ce",
        data="cifar10",
        gradients=GRADIENTS | {"scores_nondeterministic": {"KDE": 0.0}},
        splits=SPLITS,
        alarms={"KDE": {"0.05": {"flagged": 52, "n": 1000, "allowed": 50, "m": 1000}}},
        selftest={
            "bim": {"known": known, "hidden": hidden},
            "fgsm": {"known": known, "hidden": hidden | {"found": 9}},
        },
    )
    rows = [
        row("auc"),
        row("joint_success@0.05"),
        row("success_rate"),
        row("distortion", 0.1),
        *(row(name, 2.0, None, ci_low=None) for name in ("seconds", "dbi", "p_minus:ce", "val_accuracy")),
    ]
    return Evidence({"m": model}, runs(), rows)


def change(key: str, **fields: Any) -> Callable[[Evidence], Evidence]:
    """Replace fields of a run."""
    return lambda evidence: replace(
        evidence, runs=[replace(r, **fields) if r.key == key else r for r in evidence.runs]
    )


def change_facts(key: str, **told: Any) -> Callable[[Evidence], Evidence]:
    """Replace facts of a run."""
    return lambda evidence: replace(
        evidence, runs=[replace(r, facts={**r.facts, **told}) if r.key == key else r for r in evidence.runs]
    )


def change_model(**fields: Any) -> Callable[[Evidence], Evidence]:
    """Replace fields of the model."""
    return lambda evidence: replace(evidence, models={"m": replace(evidence.models["m"], **fields)})


def change_rows(*rows: dict[str, Any]) -> Callable[[Evidence], Evidence]:
    """Add rows."""
    return lambda evidence: replace(evidence, rows=[*evidence.rows, *rows])


def add(*more: Run) -> Callable[[Evidence], Evidence]:
    """Add runs."""
    return lambda evidence: replace(evidence, runs=[*evidence.runs, *more])


def without(*keys: str) -> Callable[[Evidence], Evidence]:
    """Leave runs out."""
    return lambda evidence: replace(evidence, runs=[r for r in evidence.runs if r.key not in keys])
