"""Checks of what a caller hands to an attack; each error is one line with its cause and its mend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def check_images(x: Tensor) -> None:
    """Raise unless `x` is a finite float NCHW batch inside [0, 1].

    Raises
    ------
    TypeError
        Not a tensor, or not float32 or float64 (half precision cannot hold tanh space or a small step).
    ValueError
        Not four-dimensional, not finite, or outside [0, 1].
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"images must be a torch.Tensor, not {type(x).__name__}: convert them with torch.as_tensor"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"images must be float32 or float64, not {x.dtype}: use x.float() (uint8: x.float() / 255)"
        )
    if x.dim() != 4:
        raise ValueError(f"images must be NCHW (4 dimensions), not shape {tuple(x.shape)}: reshape them")
    if x.numel() == 0:
        return
    if not torch.isfinite(x).all():
        raise ValueError("images hold NaN or infinity: clean them before the attack")
    low, high = x.min().item(), x.max().item()
    if low < 0 or high > 1:
        raise ValueError(
            f"images must lie in [0, 1], found [{low:.4g}, {high:.4g}]: rescale (uint8: x.float() / 255)"
        )


def check_rows(values: Tensor | Sequence[int], x: Tensor, name: str) -> Tensor:
    """Return `values` as (N,) int64 on the device of `x`.

    Raises
    ------
    TypeError
        The values are not integers.
    ValueError
        There is not exactly one value an image.
    """
    rows = torch.as_tensor(values, device=x.device)
    if rows.numel() and (rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool):
        raise TypeError(f"{name} must hold integers, not {rows.dtype}: use {name}.long()")
    if rows.shape != (len(x),):
        raise ValueError(f"{name} must have shape ({len(x)},), one value an image, not {tuple(rows.shape)}")
    return rows.to(torch.int64).clone()  # a copy outside of a caller's inference mode


def check_classes(values: Tensor, classes: int, name: str) -> None:
    """Raise a ValueError unless every value is a class in 0..classes-1."""
    if len(values) and (values.min() < 0 or values.max() >= classes):
        low, high = values.min().item(), values.max().item()
        raise ValueError(f"{name} must lie in 0..{classes - 1}, the target's classes, found {low}..{high}")


def check_logits(logits: Tensor, count: int) -> None:
    """Raise a ValueError unless `logits` is a finite (count, K >= 2) tensor."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != count or logits.shape[1] < 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the target must return logits of shape ({count}, K) with K >= 2, not {shape}")
    if not torch.isfinite(logits).all():
        raise ValueError(
            "the target returned NaN or infinite logits: check the trained weights and the images"
        )


def check_number(value: float, name: str, *, low: float = 0.0, strict: bool = False) -> None:
    """Raise unless the hyper-parameter is a finite number >= `low` (> `low` where strict).

    Raises
    ------
    TypeError
        Not a number.
    ValueError
        Not finite, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < low or (strict and value == low):
        raise ValueError(f"{name} must be finite and {'>' if strict else '>='} {low:g}, not {value!r}")


def check_count(value: int, name: str) -> None:
    """Raise unless the hyper-parameter is a whole number >= 1 (TypeError or ValueError)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def check_choice(value: str, choices: Sequence[str], name: str) -> None:
    """Raise a ValueError unless the hyper-parameter is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
