"""Attacks of the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.entries import Claim, Entry, Ready
from benchmarks.families import Family

LIBRARY, MODULE, DISTRIBUTION = "ART", "art", "adversarial-robustness-toolbox"


def entries(family: Family) -> list[Entry]:
    """FGSM, BIM, C&W and JSMA, each with all images in one batch."""
    name, settings = _method(family)
    return [_entry(name, settings)] if name else []


def _method(family: Family) -> tuple[str, dict[str, Any]]:
    """Name of the class in ``art.attacks.evasion``, and its arguments."""
    eps = family.eps or 0.0
    if family.key == "fgsm":
        return "FastGradientMethod", {"eps": eps}
    if family.key == "bim":
        step = eps / family.iterations
        settings = {"eps": eps, "eps_step": step, "max_iter": family.iterations, "verbose": False}
        return "BasicIterativeMethod", settings
    if family.search_steps > 1:
        return "CarliniL2Method", {
            "confidence": family.confidence,
            "learning_rate": family.lr,
            "binary_search_steps": family.search_steps,
            "max_iter": family.iterations,
            "initial_const": 1e-2,
            "verbose": False,
        }
    if family.norm == "l0":
        return "SaliencyMapMethod", {"theta": 1.0, "gamma": family.gamma, "verbose": False}
    return "", {}


def _entry(name: str, settings: dict[str, Any]) -> Entry:
    def build(model: nn.Module, x: Tensor) -> Ready:
        import art.attacks.evasion as library

        estimator = _estimator(model, x)

        def run(x: Tensor, y: Tensor, goal: Tensor | None) -> Claim:
            attack = getattr(library, name)(estimator, batch_size=len(x), **settings)
            made = attack.generate(x.cpu().numpy(), (y if goal is None else goal).cpu().numpy())
            return Claim(torch.from_numpy(made).to(x.device))

        return Ready(run)

    return Entry(LIBRARY, f"ART {name}", build)


def _estimator(model: nn.Module, x: Tensor) -> Any:
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type=x.device.type,
    )
