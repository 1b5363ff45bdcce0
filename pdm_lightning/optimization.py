"""Optimizer and learning rate of a training, from a plain spec."""

from __future__ import annotations

import inspect
import math
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

_NOT_ARGUMENTS = ("_target_", "name", "label", "schedule", "weight_decay")

#: What excludes PyTorch's one kernel over all parameters, where it is asked for.
_NOT_FUSED = ("foreach", "differentiable")


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters: weights of convolutions and linear layers decay, all others do not."""
    chosen = {id(layer.weight) for layer in module.modules() if isinstance(layer, (_ConvNd, nn.Linear))}
    trainable = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trainable if id(p) in chosen]
    others = [p for p in trainable if id(p) not in chosen]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(module: nn.Module, spec: Mapping[str, Any], *, brief: bool = False) -> Optimizer:
    """Build the optimizer of a spec.

    Parameters
    ----------
    module
        Whose trainable parameters are optimized.
    spec
        ``_target_`` (dotted name of an optimizer class), ``lr``, ``weight_decay`` and the class's own
        arguments; ``name`` and ``schedule`` are passed over.
    brief
        Leave out what keeps an optimizer apart from PyTorch's compiler, which takes a second to import: for an
        optimizer that is only looked at, or tried for a few steps.

    Raises
    ------
    ValueError
        If the class does not exist or does not take the arguments.
    """
    try:
        target = pkgutil.resolve_name(str(spec.get("_target_")))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"optimizer._target_ {spec.get('_target_')!r} not found: name e.g. torch.optim.SGD"
        ) from error
    if brief and inspect.isclass(target) and issubclass(target, Optimizer):
        plain = {"add_param_group": inspect.unwrap(target.add_param_group)}
        target = type(target.__name__, (target,), plain)
    arguments = {key: value for key, value in spec.items() if key not in _NOT_ARGUMENTS}
    # one kernel over all parameters: on small networks the loop over them is a sizeable part of a step
    if "fused" in inspect.signature(target).parameters and not any(map(arguments.get, _NOT_FUSED)):
        arguments.setdefault("fused", True)
    try:
        optimizer: Optimizer = target(
            parameter_groups(module, float(spec.get("weight_decay", 0.0))), **arguments
        )
    except TypeError as error:
        raise ValueError(
            f"{spec['_target_']} does not take these settings ({error}): mend optimizer.*"
        ) from error
    return optimizer


def lr_factor(schedule: Mapping[str, Any] | None, total_steps: int) -> Callable[[int], float]:
    """Give the factor on the learning rate as a function of the step 0 .. total_steps-1.

    With W = round(warmup * total_steps), step s < W has (s+1)/W. After it ``constant`` is 1, ``cosine`` is
    (1 + cos(pi (s-W)/(T-W)))/2, and ``multistep`` is gamma to the number of milestones m, s >= round(m T).

    Parameters
    ----------
    schedule
        ``kind``, ``warmup`` (fraction), ``milestones`` (fractions) and ``gamma``; None is constant.
    total_steps
        T.

    Raises
    ------
    ValueError
        For an unknown kind, or a fraction outside [0, 1].
    """
    given = dict(schedule or {})
    kind = given.get("kind", "constant")
    warmup, gamma = float(given.get("warmup") or 0.0), float(given.get("gamma", 0.1))
    milestones = [float(value) for value in given.get("milestones") or []]
    if kind not in ("constant", "cosine", "multistep"):
        raise ValueError(f"optimizer.schedule.kind {kind!r} is unknown: choose multistep, cosine or constant")
    if any(not 0 <= value <= 1 for value in [warmup, *milestones]):
        raise ValueError(
            "optimizer.schedule: warmup and milestones are fractions of the training: use 0 to 1"
        )
    rise = round(warmup * total_steps)
    drops = [round(value * total_steps) for value in milestones]

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        if kind == "cosine":
            return (1 + math.cos(math.pi * (step - rise) / max(total_steps - rise, 1))) / 2
        return gamma ** sum(step >= drop for drop in drops) if kind == "multistep" else 1.0

    return factor
