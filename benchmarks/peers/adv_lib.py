"""Attacks of the Adversarial Library (adv-lib)."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from benchmarks.entries import Claim, Entry, Ready
from benchmarks.families import Family

LIBRARY, MODULE, DISTRIBUTION = "adv-lib", "adv_lib", "adv-lib"
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def entries(family: Family) -> list[Entry]:
    """BIM, C&W, and the attacks that seek the smallest distance: DDN, FMN, ALMA, PDGD, FAB; it has no JSMA."""
    if family.eps is not None and family.iterations == 1:
        return []
    return [_entry(name, attack) for name, attack in _attacks(_library(), family).items()]


def _attacks(library: Any, family: Family) -> dict[str, Attack]:
    steps = family.iterations
    if family.key == "bim":
        step = (family.eps or 0.0) / steps
        fixed = {"ε": family.eps, "steps": steps, "random_init": False, "absolute_step_size": step}
        return {"PGD without a random start": lambda m, x, y: library.pgd_linf(m, x, y, **fixed)}
    if family.search_steps > 1:
        return {
            "C&W": lambda m, x, y: library.carlini_wagner_l2(
                m,
                x,
                y,
                confidence=family.confidence,
                learning_rate=family.lr,
                initial_const=1e-2,
                binary_search_steps=family.search_steps,
                max_iterations=steps,
            )
        }
    if family.key == "l2":
        return {
            "DDN": lambda m, x, y: library.ddn(m, x, y, steps=steps, levels=None),
            "FMN L2": lambda m, x, y: library.fmn(m, x, y, norm=2, steps=steps),
            "ALMA L2": lambda m, x, y: library.alma(m, x, y, num_steps=steps, distance="l2"),
            "PDGD": lambda m, x, y: library.pdgd(m, x, y, num_steps=steps),
        }
    if family.key == "linf":
        return {
            "FMN Linf": lambda m, x, y: library.fmn(m, x, y, norm=math.inf, steps=steps, α_init=10.0),
            "FAB Linf": lambda m, x, y: library.fab(m, x, y, norm=math.inf, n_iter=steps),
        }
    return {}


def _library() -> Any:
    """``adv_lib.attacks``; its curves need visdom, which nothing here draws, so that it may be absent."""
    absent = importlib.util.find_spec("visdom") is None
    if absent:
        sys.modules["visdom"] = ModuleType("visdom")
    try:
        return importlib.import_module("adv_lib.attacks")
    finally:
        if absent:
            del sys.modules["visdom"]


def _entry(name: str, attack: Attack) -> Entry:
    def build(model: nn.Module, x: Tensor) -> Ready:
        return Ready(lambda x, y, goal: Claim(attack(model, x, y).detach()))

    return Entry(LIBRARY, f"adv-lib {name}", build)
