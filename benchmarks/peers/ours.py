"""The attacks of this project, on the model itself and through the gradient engine."""

from __future__ import annotations

import math

from torch import Tensor, nn

import attacks
from attacks import BIM, FGSM, JSMA, Attack, CarliniWagner, MinNorm
from benchmarks.entries import Claim, Entry, Ready
from benchmarks.families import Family

PATHS = ("engine", "exact")
WHOLE = " without abort"


def entries(family: Family) -> list[Entry]:
    """Each attack of the family, on both paths."""
    return [_entry(label, family, path) for label in _labels(family) for path in PATHS]


def attack(family: Family, label: str, x: Tensor) -> Attack:
    """The attack behind a row, with the family's parameters, for images (n, C, H, W)."""
    if family.key == "fgsm":
        return FGSM(eps=family.eps or 0.0)
    if family.key == "bim":
        return BIM(eps=family.eps or 0.0, iterations=family.iterations)
    if family.search_steps > 1:
        return CarliniWagner(
            confidence=family.confidence,
            max_iterations=family.iterations,
            binary_search_steps=family.search_steps,
            lr=family.lr,
            abort_early=not label.endswith(WHOLE),
        )
    if family.norm == "l0":
        return JSMA(theta=1.0, max_steps=math.ceil(x[0].numel() * family.gamma / 2))
    return MinNorm(norm=family.norm, quality=label.split()[-1])


def _labels(family: Family) -> list[str]:
    if family.key in ("l2", "linf"):
        return [f"min-norm, {quality}" for quality in ("fast", "best")]
    label = family.title.partition(",")[0]
    return [label, f"{label}{WHOLE}"] if family.search_steps > 1 else [label]


def _entry(label: str, family: Family, path: str) -> Entry:
    def build(model: nn.Module, x: Tensor) -> Ready:
        made = attack(family, label, x)
        target = attacks.prepare(model, example=x) if path == "engine" else model

        def run(x: Tensor, y: Tensor, goal: Tensor | None) -> Claim:
            # one number for all, so that an image draws the same noise alone and in a batch
            result = made(target, x, y, y_target=goal, index=[0] * len(x))
            return Claim(result.x_adv, result.success)

        return Ready(run, (target.module,) if isinstance(target, attacks.Prepared) else ())

    return Entry("ours", f"ours, {label} ({path})", build, path)
