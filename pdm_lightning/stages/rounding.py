"""Adversarial images as a file of eight bits holds them, still inside the ball of their attack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from attacks.base import finite_gradient
from attacks.objectives import margin
from pdm_lightning.matching import ROUNDING, inside
from pdm_lightning.stages.hands import Hands

LEVELS = 255
"""Steps of a pixel of eight bits."""


def outside(attack: Mapping[str, Any], x_adv: Tensor, x: Tensor) -> Tensor:
    """(N,) bool: images beyond the radius that an attack declares, on the CPU; none where it declares none."""
    change = (x_adv - x).flatten(1).double().cpu()
    if attack.get("eps") is None:
        return torch.zeros(len(change), dtype=torch.bool)
    linf = attack.get("norm", "linf") != "l2"
    size = change.abs().amax(dim=1) if linf else torch.linalg.vector_norm(change, dim=1)
    return ~inside(size, float(attack["eps"]))


def directed(x_adv: Tensor, slope: Tensor) -> Tensor:
    """Levels (N, C, H, W), of each pixel's two the one that the slope points to."""
    return torch.where(slope > 0, (x_adv * LEVELS).ceil(), (x_adv * LEVELS).floor())


def rounded(wish: Tensor, x_adv: Tensor, x: Tensor, attack: Mapping[str, Any]) -> Tensor:
    """Images of 256 levels, as close to the levels wished for as the ball of an attack lets them be.

    In an L-infinity ball each pixel goes to the nearest level inside x +- eps. In an L2 ball an image that the levels
    wished for put outside is rounded towards its clean image instead, pixel by pixel: clean pixels are levels, so that
    none moves further away than it was. Where a clean image is none of 256 levels an image may still lie outside: ask
    `outside`.

    Parameters
    ----------
    wish : Tensor
        (N, C, H, W) levels, 0 to 255.
    x_adv, x : Tensor
        (N, C, H, W) adversarial and clean images in [0, 1].
    attack : mapping
        With ``eps`` and ``norm``, for one in a ball.
    """
    if attack.get("eps") is not None and attack.get("norm", "linf") != "l2":
        reach = float(attack["eps"]) * (1 + ROUNDING) + ROUNDING
        low, high = (LEVELS * (x.double() - reach)).ceil(), (LEVELS * (x.double() + reach)).floor()
        wish = torch.where(low <= high, wish.double().clamp(low, high), wish.double()).to(x_adv)
    images = wish.clamp(0, LEVELS) / LEVELS
    beyond = outside(attack, images, x).to(x.device)
    if beyond.any():
        near = x_adv * LEVELS
        back = torch.where(x_adv > x, near.floor(), near.ceil()).clamp(0, LEVELS) / LEVELS
        images = torch.where(beyond.view(-1, 1, 1, 1), back, images)
    return images


def held(
    hands: Hands, x_adv: Tensor, x: Tensor, y: Tensor, goal: Tensor | None, attack: Mapping[str, Any]
) -> Tensor:
    """(n,) bool on the CPU: is there a rounding that an attack on classifier and detector still counts as a success?

    Tried are the nearest levels, those along the gradient of the margin, of the score, and of both together: who
    writes the file chooses.

    Parameters
    ----------
    hands : Hands
        The adversary, with the target that it worked on.
    x_adv, x, y, goal : Tensor
        (n, C, H, W) images, (n,) labels and, for a targeted attack, classes aimed at, on the target's device.
    attack : mapping
        Its parameters.
    """
    found = torch.zeros(len(y), dtype=torch.bool)
    for wish in _wishes(hands.target, x_adv, y, goal):
        images = rounded(wish, x_adv, x, attack)
        success, _ = hands.attack.judge(hands.target, images, y, goal)
        found |= success.cpu() & ~outside(attack, images, x)
    return found


def _wishes(target: Any, x_adv: Tensor, y: Tensor, goal: Tensor | None) -> Iterator[Tensor]:
    leaf = x_adv.clone().requires_grad_()
    look = target.look(leaf)
    fool = finite_gradient(margin(look.logits, y, goal), leaf, keep=True)
    calm = finite_gradient(-look.scores, leaf)
    yield (x_adv * LEVELS).round()
    for slope in (fool, calm, _unit(fool) + _unit(calm)):
        yield directed(x_adv, slope)


def _unit(slope: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(slope.flatten(1), dim=1).clamp(min=1e-30)
    return slope / length.view(-1, 1, 1, 1)
