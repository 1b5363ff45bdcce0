"""What goes into an attack and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.target import Logits

Progress = Callable[..., object]


def silent(done: int, total: int, active: int | None = None) -> None:
    """Report nothing: the progress of whoever asks for none."""


@dataclass(frozen=True)
class AttackResult:
    """What an attack made of N images; every tensor is detached and on the images' device.

    Attributes
    ----------
    x_adv : Tensor
        (N, C, H, W) in [0, 1], dtype as given; a failed example is its best attempt.
    success : Tensor
        (N,) bool, verified after the attack, on the original where the target was a prepared copy of it.
    y : Tensor
        (N,) int64 labels moved away from.
    predicted : Tensor
        (N,) int64, the target's prediction on `x_adv`.
    target : Tensor or None
        (N,) int64 classes aimed at; None for an untargeted attack.
    l2, linf, l0 : Tensor
        (N,) distances to the clean images, in units of the pixel range; l0 counts the changed pixel values.
    passes : Tensor
        (N,) int64 gradients of the target that were used for each example.
    zero_gradients : Tensor
        (N,) int64, how many of those were zero everywhere (a saturated softmax, for one).
    """

    x_adv: Tensor
    success: Tensor
    y: Tensor
    predicted: Tensor
    target: Tensor | None
    l2: Tensor
    linf: Tensor
    l0: Tensor
    passes: Tensor
    zero_gradients: Tensor


@dataclass(frozen=True)
class Task:
    """One batch to attack, checked, with the model frozen: what `Attack.craft` sees.

    Attributes
    ----------
    logits : callable
        Images (n, C, H, W) to readout logits (n, K), differentiable.
    x, y, target, index
        Clean images, labels moved away from, classes aimed at or None, example numbers.
    seed : int
        With `index`, the only source of randomness.
    progress : callable
        Takes (done, total) and, by name, ``active``: how many examples are still under way.
    clean : callable
        Gives `clean_logits`, looked at when they are first asked for.
    model : object
        The target as it was given: for attacks that need more of it than logits.
    micro_batch : int or None
        Images whose forward and backward pass run together; None: all in hand.
    slack : float
        By how much a margin may be off where `logits` are those of a prepared copy: the judge has others.
    """

    logits: Logits
    x: Tensor
    y: Tensor
    target: Tensor | None
    index: Tensor
    seed: int
    progress: Progress
    clean: Callable[[], Tensor]
    model: Any = None
    micro_batch: int | None = None
    slack: float = 0.0

    @property
    def clean_logits(self) -> Tensor:
        """(N, K) logits of the clean images, by the model that judges."""
        return self.clean()

    def targets(self, rows: Tensor) -> Tensor | None:
        """Classes aimed at by the examples `rows`, or None."""
        return None if self.target is None else self.target[rows]

    def in_parts(self, step: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
        """Apply a function of rows to micro-batches and join what it returns.

        A gradient needs what its forward pass left: while both work on a micro-batch, that may stay in the cache.

        Parameters
        ----------
        step : callable
            Takes a part (m, ...) of each of `rows` and returns detached tensors (m, ...).
        *rows : Tensor
            (n, ...) each.
        """
        size = self.micro_batch or max(1, len(rows[0]))
        if len(rows[0]) <= size:
            return step(*rows)
        parts = zip(*(tensor.split(size) for tensor in rows), strict=True)
        return tuple(torch.cat(column) for column in zip(*(step(*part) for part in parts), strict=True))


class Counts:
    """Gradients of each of N examples over a whole attack: `passes` and `zero_gradients`, (N,) int64."""

    def __init__(self, task: Task) -> None:
        self.passes, self.zero_gradients = torch.zeros_like(task.y), torch.zeros_like(task.y)

    def count(self, rows: Tensor, gradient: Tensor) -> None:
        """One gradient more for each of `rows`; `gradient` (n, ...) tells which were zero everywhere."""
        self.passes[rows] += 1
        self.zero_gradients[rows] += all_zero(gradient)


def all_zero(gradient: Tensor) -> Tensor:
    """(n,) bool: the gradient of the example is zero everywhere."""
    return (gradient == 0).flatten(1).all(dim=1)


@dataclass(frozen=True)
class Crafted:
    """What `Attack.craft` returns: images (N, C, H, W), and the (N,) int64 counts of `AttackResult`."""

    x_adv: Tensor
    passes: Tensor
    zero_gradients: Tensor
