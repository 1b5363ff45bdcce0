"""Classifiers of which it is known what the strongest attack can do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HALVINGS = 60


class Linear(nn.Module):
    """Two classes, o = (-s, s) / 2 with s = w x + b: the margin of the label is s or -s.

    Parameters
    ----------
    weight : Tensor
        (C * H * W,) w.
    bias : float
        b.
    """

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor(bias, dtype=weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, 2)."""
        score = x.flatten(1) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1) / 2


def reachable(model: Linear, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
    """By how much the margin of the label can fall inside a ball and the box: (N,), exact.

    With g the gradient's size and r the room that the box leaves in the direction that lowers the margin: in the
    L-infinity ball sum_i g_i min(eps, r_i); in the L2 ball sum_i g_i min(r_i, t g_i), t the largest for which
    that step is no longer than eps (Karush-Kuhn-Tucker), found by bisection.

    Parameters
    ----------
    model : Linear
    x, y : Tensor
        (N, C, H, W) images in [0, 1], and (N,) labels 0 or 1.
    norm : str
        ``linf`` or ``l2``.
    eps : float
        Radius; infinity for the box alone.
    """
    weight = model.weight.detach().double()
    lowers = torch.where(y[:, None] == 1, -weight, weight)  # the sign of the step that lowers the margin
    flat = x.flatten(1).double()
    size, room = weight.abs(), torch.where(lowers > 0, 1 - flat, flat)
    if norm == "linf" or eps == float("inf"):
        return (size * room.clamp(max=eps)).sum(dim=1)
    low = torch.zeros(len(x), 1, dtype=torch.float64)
    high = torch.full_like(low, 1 / float(size[size > 0].min()))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        inside = torch.minimum(room, middle * size).norm(dim=1, keepdim=True) <= eps
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return (size * torch.minimum(room, low * size)).sum(dim=1)


class Hidden(nn.Module):
    """Two classes, told apart by one direction of another classifier's embedding.

    Parameters
    ----------
    classifier : nn.Module
        Has ``embed_and_logits(x)``.
    direction : Tensor
        (d,) in the embedding.
    offset : float
        Class 1 lies where the embedding goes beyond it in that direction.
    scale : float
        Of the logits.
    """

    def __init__(self, classifier: nn.Module, direction: Tensor, offset: float, scale: float) -> None:
        super().__init__()
        self.classifier, self.offset, self.scale = classifier, offset, scale
        self.register_buffer("direction", direction)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, 2)."""
        z = self.classifier.embed_and_logits(x)[0]  # type: ignore[operator]
        score = self.scale * (z @ self.direction - self.offset)
        return torch.stack([-score, score], dim=1) / 2
