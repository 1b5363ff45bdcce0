"""Reaching the classifier behind a target, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Logits = Callable[[Tensor], Tensor]


def logits_of(target: Any) -> Logits:
    """The function from images to readout logits behind a target.

    Raises
    ------
    TypeError
        The target has no method ``logits`` and cannot be called.
    """
    method = getattr(target, "logits", None)
    # a module may have a *layer* named logits: then the module itself is the function
    if callable(method) and not (isinstance(target, nn.Module) and isinstance(method, nn.Module)):
        return method
    if callable(target):
        return target
    raise TypeError(
        f"a target needs a method logits(x) or must be callable, {type(target).__name__} is neither"
    )


def module_of(target: Any) -> nn.Module | None:
    """The module behind a target: itself, its ``module``, or the owner of a bound method; else None."""
    candidates = (target, getattr(target, "module", None), getattr(target, "__self__", None))
    return next((c for c in candidates if isinstance(c, nn.Module)), None)


def exact_of(target: Any) -> Any:
    """Who judges: the original of a target that is a prepared copy (its ``exact``), else the target itself."""
    exact = None if isinstance(target, nn.Module) else getattr(target, "exact", None)
    return target if exact is None else exact


@contextmanager
def frozen(target: Any) -> Iterator[None]:
    """Hold the target's module in eval mode with frozen parameters; afterwards all is as before.

    Restored exactly, also where the body raises: the mode of every submodule, ``requires_grad`` and
    ``.grad`` of every parameter.

    Parameters
    ----------
    target : object
        An ``nn.Module``, an object whose ``module`` is one, or a bound method of one; anything else: a no-op.
    """
    module = module_of(target)
    modes = [(m, m.training) for m in module.modules()] if module is not None else []
    flags = [(p, p.requires_grad, p.grad) for p in module.parameters()] if module is not None else []
    try:
        for submodule, _ in modes:
            submodule.training = False
        for parameter, _, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for submodule, mode in modes:
            submodule.training = mode
        for parameter, flag, grad in flags:
            parameter.requires_grad_(flag)
            parameter.grad = grad
