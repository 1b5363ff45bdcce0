"""Random noise of an attack's own size: what an attack has to be stronger than."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.checks import check_choice, check_rows
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
        (N, C, H, W) noisy images in [0, 1], no further away than `x_adv`, up to the rounding of its dtype.

    Raises
    ------
    ValueError
        For another norm, for images of another shape, or where there is not one number an image.
    """
    check_choice(norm, NORMS, "norm")
    if x_adv.shape != x.shape:
        raise ValueError(f"x_adv must have the shape of x, {tuple(x.shape)}, not {tuple(x_adv.shape)}")
    numbers = check_rows(index, x, "index")
    if not len(x):
        return x.clone()
    start, wanted = x.double(), _distance(x_adv.double() - x.double(), norm)
    rows = [
        torch.randn(x.shape[1:], generator=g, dtype=torch.float64) for g in generators(seed, numbers, "noise")
    ]
    direction = torch.stack(rows).to(start)
    direction = direction.sign() if norm == "linf" else direction
    return _moved(start, direction, _scale(start, direction, wanted, norm)).to(x)


def _scale(x: Tensor, direction: Tensor, wanted: Tensor, norm: str) -> Tensor:
    """(N,) the largest scales at which the distances are no more than wanted.

    Halves the ratio of two scales: one at which the box, if it cut nothing off, would allow the distance, and one at
    which it has cut off all.
    """
    low = wanted / _distance(direction, norm)
    high = torch.maximum(1 / direction.abs().flatten(1).amin(dim=1).clamp(min=1e-12), low)
    for _ in range(HALVINGS):
        middle = (low * high).sqrt()  # 0 stays 0: no noise for an image that the attack left alone
        within = _distance(_moved(x, direction, middle) - x, norm) <= wanted
        low, high = torch.where(within, middle, low), torch.where(within, high, middle)
    return low


def _moved(x: Tensor, direction: Tensor, scale: Tensor) -> Tensor:
    return (x + scale[:, None, None, None] * direction).clamp(0, 1)


def _distance(change: Tensor, norm: str) -> Tensor:
    order = float("inf") if norm == "linf" else 2
    return torch.linalg.vector_norm(change.flatten(1), ord=order, dim=1)
