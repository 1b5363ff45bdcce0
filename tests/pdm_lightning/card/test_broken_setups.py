"""Set-ups with one thing wrong, each run from training to card: the check that should catch it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pdm_lightning.card import CHECKS, judge
from pdm_lightning.stages import craft

pytestmark = pytest.mark.slow

#: Everything that all twelve checks ask for.
SOUND = (
    ("attack=bim", "attack.loss=margin", "attack.iterations=40", "attack.step=0.02", "attack.eps=0.2"),
    ("attack=fgsm", "attack.eps=0.2"),
    ("attack=selective_pgd", "attack.eps=0.2", "attack.loss=margin", "threat=white_box"),
    ("attack=fgsm", "attack.eps=0.2", "threat=transfer"),
)
BIM, FGSM, SELECTIVE, TRANSFER = SOUND


def part(group: str, name: str) -> str:
    return f"{group}._target_=broken_parts.{name}"


#: The check that has to catch it, and the grids of the study.
BROKEN: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "masked gradients": ("gradients", ((*BIM, part("model", "Masked")),)),
    "masked gradients, unbounded": ("unbounded", ((*BIM, part("model", "Masked")),)),
    "masked gradients, no gradients needed": ("gradient_free", ((*BIM, part("model", "Masked")),)),
    "leaked threshold": ("disjoint", ((*FGSM, part("data", "leaked_threshold")),)),
    "test images in train": ("disjoint", ((*FGSM, part("data", "test_in_train")),)),
    "wrong sign": ("selftest", ((*BIM, part("attack", "WrongSign")),)),
    "too few iterations": ("converged", (("attack=bim", "attack.iterations=2", "attack.step=0.02"),)),
    "constant detector": (
        "disjoint",
        (
            (
                *FGSM,
                part("detector", "Constant"),
                *(
                    f"~detector.{key}"
                    for key in ("bandwidth", "bandwidth_scale", "kernels_per_class", "layer", "seed")
                ),
            ),
        ),
    ),
    "non-deterministic model": ("gradients", ((*BIM, part("model", "Dicing")),)),
    "mismatched normalisation": ("validity", ((*FGSM, part("attack", "Normalised")),)),
    "saturated softmax": (
        "gradients",
        (("attack=bim", "attack.loss=ce", part("model", "Saturated")),),
    ),
    "budget overrun": ("validity", ((*BIM, part("attack", "Overrun")),)),
    "fragile in 8 bits": (
        "validity",
        (("attack=fgsm", "attack.eps=0.006", part("model", "BetweenLevels")),),
    ),
    "tiny n": ("counts", ((*FGSM, "budget.images.cheap=20", "evaluate.min_n=5"),)),
    "single step stronger": ("iterated", ((*BIM, part("attack", "Timid")), FGSM)),
    "white box weaker": (
        "threats",
        (BIM, FGSM, (*SELECTIVE, part("attack", "Idle"))),
    ),
    "success falls with eps": ("monotone", ((*BIM, part("attack", "Shrinking")),)),
}


@pytest.fixture(scope="module")
def sound(judged: Callable[..., Any]) -> Any:
    return judged(*SOUND)


def test_a_sound_set_up_passes_all(sound: Any) -> None:
    verdicts = {check.id: (check.verdict, check.says) for check in sound.card.checks}
    assert {verdict for verdict, _ in verdicts.values()} == {"PASS"}, verdicts
    assert list(verdicts) == list(CHECKS) and len(CHECKS) == 12


def test_what_was_measured_of_the_white_box(sound: Any) -> None:
    """Joint successes in eight bits, joint attacks without a bound, one step and more restarts beside its own."""
    (run,) = [run for run in sound.evidence.study() if run.threat == "white_box"]
    assert run.facts["rounded_joint"]["n"] == int(run.success.sum()) > 0
    assert {probe.role for probe in sound.evidence.runs if probe.of == run.key} >= {
        "doubled",
        "one_step",
        "unbounded",
    }
    told = {check.id: check.numbers for check in sound.card.checks}
    assert any("past KDE" in what for what in told["unbounded"])
    assert any("restarts" in what for what in told["converged"])


@pytest.mark.parametrize("name", BROKEN)
def test_caught(name: str, judged: Callable[..., Any]) -> None:
    check, grids = BROKEN[name]
    study = judged(*grids)
    assert check in study.failed, {c.id: (c.verdict, c.says) for c in study.card.checks}
    assert check not in study.without(check)


def test_dropped_failures(judged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    finish = craft.finish

    def successes_only(folder: Path, *rest: Any) -> None:
        finish(folder, *rest)
        path = folder / "adversarial.safetensors"
        rows = load_file(path)
        kept = rows["predicted"] != rows["y"]
        save_file({name: tensor[kept].clone() for name, tensor in rows.items()}, path)

    monkeypatch.setattr(craft, "finish", successes_only)
    study = judged(("attack=fgsm", "attack.eps=0.05", "budget.images.cheap=400"), fresh=True)
    assert "counts" in study.failed and "failures were dropped" in study.says("counts")
    assert "counts" not in study.without("counts")


def test_implausible_claim(sound: Any) -> None:
    """A white box that hardly harms anyone, on data of which the best robust accuracy is known."""
    models = {key: replace(model, data="cifar10") for key, model in sound.evidence.models.items()}
    idle = [
        replace(run, fooled=torch.zeros_like(run.fooled)) if run.threat == "white_box" else run
        for run in sound.evidence.runs
    ]
    card = judge(replace(sound.evidence, models=models, runs=idle))
    (check,) = [check for check in card.failed if check.id == "selftest"]
    assert "implausible" in check.says and "75.3" in check.says
    assert "selftest" not in {c.id for c in judge(replace(sound.evidence, models=models)).failed}
