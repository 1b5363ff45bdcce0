"""Randomness that belongs to an example, not to its batch: everything is drawn from (seed, index) alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

TARGET_CLASSES = ("random", "runner_up", "next")


def generators(seed: int, index: Tensor, purpose: str) -> Iterator[torch.Generator]:
    """One CPU generator an example, a pure function of (seed, index of the example, purpose).

    Parameters
    ----------
    seed : int
        Seed of the whole attack.
    index : Tensor
        (N,) int64, the examples' numbers in their data set.
    purpose : str
        Keeps two uses of randomness in one attack apart.
    """
    for number in index.tolist():
        digest = hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()
        yield torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def uniform(x: Tensor, seed: int, index: Tensor, purpose: str) -> Tensor:
    """Values uniform in [0, 1), shaped and typed as `x` (N, ...); row i from (seed, index[i]) alone."""
    shape = x.shape[1:]
    # drawn in float64 on the CPU, so that every device and precision sees the same numbers
    rows = [torch.rand(shape, generator=g, dtype=torch.float64) for g in generators(seed, index, purpose)]
    return torch.stack(rows).to(x)


def choose_targets(rule: str, clean_logits: Tensor, y: Tensor, seed: int, index: Tensor) -> Tensor:
    """Pick the class that a targeted attack aims at; never `y` itself.

    Parameters
    ----------
    rule : str
        ``random``: uniform over the other classes, from (seed, index). ``runner_up``: the largest clean logit
        but y's. ``next``: (y + 1) mod K.
    clean_logits : Tensor
        (N, K) readout logits of the clean images.
    y : Tensor
        (N,) int64 labels moved away from.
    seed : int
        Seed of the attack.
    index : Tensor
        (N,) int64 numbers of the examples.

    Returns
    -------
    Tensor
        (N,) int64 on the device of `y`.
    """
    classes = clean_logits.shape[1]
    if rule == "next":
        return (y + 1) % classes
    if rule == "runner_up":
        return clean_logits.scatter(1, y[:, None], -torch.inf).argmax(dim=1)
    draws = [torch.randint(classes - 1, (), generator=g).item() for g in generators(seed, index, "target")]
    other = torch.tensor(draws, dtype=torch.int64, device=y.device)
    return other + (other >= y)  # skips y: uniform over the K - 1 others
