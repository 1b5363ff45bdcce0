"""Attacks of CleverHans."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from benchmarks.entries import Claim, Entry, Ready
from benchmarks.families import Family

LIBRARY, MODULE, DISTRIBUTION = "CleverHans", "cleverhans", "cleverhans"
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def entries(family: Family) -> list[Entry]:
    """FGSM, BIM and C&W."""
    if family.key == "fgsm":
        return [_entry("FGM", _fast_gradient(family))]
    if family.key == "bim":
        return [_entry("PGD without a random start", _iterative(family))]
    if family.search_steps > 1:
        return [_entry("C&W", _carlini_wagner(family))]
    return []


def _fast_gradient(family: Family) -> Attack:
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method

    return lambda model, x, y: fast_gradient_method(
        model, x, family.eps, math.inf, clip_min=0, clip_max=1, y=y
    )


def _iterative(family: Family) -> Attack:
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    eps = family.eps or 0.0
    return lambda model, x, y: projected_gradient_descent(
        model,
        x,
        eps,
        eps / family.iterations,
        family.iterations,
        math.inf,
        clip_min=0,
        clip_max=1,
        y=y,
        rand_init=False,
        sanity_checks=False,
    )


def _carlini_wagner(family: Family) -> Attack:
    from cleverhans.torch.attacks.carlini_wagner_l2 import carlini_wagner_l2

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return carlini_wagner_l2(  # type: ignore[no-any-return]
            model,
            x,
            n_classes=model(x[:1]).shape[1],
            y=y,
            lr=family.lr,
            confidence=family.confidence,
            initial_const=1e-2,
            binary_search_steps=family.search_steps,
            max_iterations=family.iterations,
        )

    return attack


def _entry(name: str, attack: Attack) -> Entry:
    def build(model: nn.Module, x: Tensor) -> Ready:
        return Ready(lambda x, y, goal: Claim(attack(model, x, y).detach()))

    return Entry(LIBRARY, f"CleverHans {name}", build)
