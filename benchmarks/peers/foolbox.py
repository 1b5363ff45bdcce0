"""Attacks of foolbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from benchmarks.entries import Claim, Entry, Ready
from benchmarks.families import Family

LIBRARY = MODULE = DISTRIBUTION = "foolbox"


def entries(family: Family) -> list[Entry]:
    """FGSM, BIM, C&W, DDN and FMN; it has no JSMA."""
    import foolbox.attacks as library

    if family.key == "fgsm":
        return [_entry("FGSM", family, lambda: library.LinfFastGradientAttack())]
    if family.key == "bim":
        step = (family.eps or 0.0) / family.iterations
        return [
            _entry(
                "BIM",
                family,
                lambda: library.LinfBasicIterativeAttack(abs_stepsize=step, steps=family.iterations),
            )
        ]
    if family.search_steps > 1:
        return [_entry("C&W", family, lambda: library.L2CarliniWagnerAttack(**_carlini_wagner(family)))]
    if family.key == "l2":
        return [
            _entry("DDN", family, lambda: library.DDNAttack(steps=family.iterations)),
            _entry("FMN L2", family, lambda: library.L2FMNAttack(steps=family.iterations)),
        ]
    if family.key == "linf":
        return [_entry("FMN Linf", family, lambda: library.LInfFMNAttack(steps=family.iterations))]
    return []


def _carlini_wagner(family: Family) -> dict[str, Any]:
    return {
        "binary_search_steps": family.search_steps,
        "steps": family.iterations,
        "stepsize": family.lr,
        "confidence": family.confidence,
        "initial_const": 1e-2,
        "abort_early": True,
    }


def _entry(name: str, family: Family, make: Callable[[], Any]) -> Entry:
    def build(model: nn.Module, x: Tensor) -> Ready:
        from foolbox import PyTorchModel

        bounded, attack = PyTorchModel(model, bounds=(0, 1), device=x.device), make()

        def run(x: Tensor, y: Tensor, goal: Tensor | None) -> Claim:
            _, clipped, success = attack(bounded, x, y, epsilons=family.eps)
            return Claim(clipped, success)

        return Ready(run)

    return Entry(LIBRARY, f"foolbox {name}", build)
