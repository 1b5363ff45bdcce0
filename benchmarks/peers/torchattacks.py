"""Attacks of torchattacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from benchmarks.entries import Claim, Entry, Ready
from benchmarks.families import Family

LIBRARY = MODULE = DISTRIBUTION = "torchattacks"


def entries(family: Family) -> list[Entry]:
    """FGSM, BIM, C&W (without a search over the constant, so with as many steps as all searches), JSMA, FAB."""
    import torchattacks as library

    if family.key == "fgsm":
        return [_entry("FGSM", lambda model: library.FGSM(model, eps=family.eps))]
    if family.key == "bim":
        return [_entry("BIM", lambda model: library.BIM(model, **_bim(family)))]
    if family.search_steps > 1:
        steps = family.search_steps * family.iterations
        settings = {"c": 1, "kappa": family.confidence, "steps": steps, "lr": family.lr}
        return [_entry(f"CW (c = 1, {steps} steps)", lambda model: library.CW(model, **settings))]
    if family.norm == "l0":
        return [_entry("JSMA", lambda model: library.JSMA(model, theta=1.0, gamma=family.gamma))]
    norm = {"l2": "L2", "linf": "Linf"}[family.norm]
    # it returns clean images where it finds nothing inside the radius: that of the whole box
    return [
        _entry(
            f"FAB {norm}",
            lambda model: library.FAB(model, norm=norm, eps=1e4, steps=family.iterations),
        )
    ]


def _bim(family: Family) -> dict[str, Any]:
    eps = family.eps or 0.0
    return {"eps": eps, "alpha": eps / family.iterations, "steps": family.iterations}


def _entry(name: str, make: Callable[[nn.Module], Any]) -> Entry:
    def build(model: nn.Module, x: Tensor) -> Ready:
        def run(x: Tensor, y: Tensor, goal: Tensor | None) -> Claim:
            attack = make(model)
            if goal is None:
                return Claim(attack(x, y))
            attack.set_mode_targeted_by_label(quiet=True)
            return Claim(attack(x, goal))

        return Ready(run)

    return Entry(LIBRARY, f"torchattacks {name}", build)
