"""Random noise of an attack's own size: what an attack has to be stronger than."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.checks import check_choice
from attacks.geometry import NORMS
from attacks.randomness import generators

HALVINGS = 40


def noise_like(x: Tensor, x_adv: Tensor, norm: str, seed: int, index: Tensor) -> Tensor:
    """Give each image random noise of the distance that its adversarial version has.

    The direction is random signs (``linf``) or Gaussian (``l2``). The box cuts off a part of it, so the scale is found
    by bisection on the distance that remains; where the box does not allow the distance, it is the largest there is.

    Parameters
    ----------
    x, x_adv : Tensor
        (N, C, H, W) clean and adversarial images in [0, 1].
    norm : str
        ``linf`` or ``l2``.
    seed : int
    index : Tensor
        (N,) int64; row i's noise depends on (seed, index[i]) alone.

    Returns
    -------
    Tensor
        (N, C, H, W) noisy images in [0, 1].
    """
    check_choice(norm, NORMS, "norm")
    if not len(x):
        return x.clone()
    drawn = torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators(seed, index, "noise")])
    direction = (drawn.sign() if norm == "linf" else drawn).to(x)
    wanted = _distance(x_adv - x, norm)
    low = torch.zeros_like(wanted)
    # beyond this scale every pixel with a direction has reached its end of the box
    smallest = direction.abs().flatten(1).amin(dim=1).clamp(min=1e-6)
    high = torch.minimum(1 / smallest, torch.full_like(smallest, 1e6))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = _distance(_moved(x, direction, middle) - x, norm) < wanted
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return _moved(x, direction, high)


def _moved(x: Tensor, direction: Tensor, scale: Tensor) -> Tensor:
    return (x + scale[:, None, None, None] * direction).clamp(0, 1)


def _distance(change: Tensor, norm: str) -> Tensor:
    order = float("inf") if norm == "linf" else 2
    return torch.linalg.vector_norm(change.flatten(1), ord=order, dim=1)
