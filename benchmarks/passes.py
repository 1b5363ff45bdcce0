"""Forward and backward passes of a model, counted by hooks and not by what an attack says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Passes:
    """Images that went through a model.

    Attributes
    ----------
    forwards, backwards
        Forward passes, and gradients taken through the output, each counted once an image.
    """

    forwards: int = 0
    backwards: int = 0


@contextmanager
def counted(modules: Iterable[nn.Module]) -> Iterator[Passes]:
    """Count what goes through the modules until the block ends."""
    passes = Passes()

    def backward(gradient: Tensor) -> None:
        passes.backwards += len(gradient)

    def forward(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        passes.forwards += len(output)
        if output.requires_grad:
            output.register_hook(backward)

    handles = [module.register_forward_hook(forward) for module in modules]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()
