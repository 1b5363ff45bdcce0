"""Attacks that are wrong on purpose, each in one way, on a linear model whose distances are known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.entries import Claim, Entry, Ready
from benchmarks.subjects import Subject

Attack = Callable[[nn.Module, Tensor, Tensor], Claim]


def linear() -> nn.Sequential:
    """Two classes of 4x4 images by their mean: class 1 above 1/2; a logit is 8 (mean - 1/2) or its negative."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16, eps=1e-12), nn.Linear(16, 2))
    model[2].weight.data = torch.stack([-torch.ones(16), torch.ones(16)]) / 2
    model[2].bias.data = torch.tensor([4.0, -4.0])
    return model.eval()


def subject(n: int = 4) -> Subject:
    """Images around .4, with a little structure: class 0, margin 1.6, at L2 .4 from the boundary."""
    x = torch.full((n, 1, 4, 4), 0.4)
    x[:, :, 0, 0] += 0.02
    x[:, :, 0, 1] -= 0.02
    return Subject(linear(), x, torch.zeros(n, dtype=torch.int64), "linear")


def entry(attack: Attack, label: str = "toy") -> Entry:
    return Entry("toy", label, lambda model, x: Ready(lambda x, y, goal: attack(model, x, y)))


def shift(model: nn.Module, x: Tensor, y: Tensor, by: float = 0.2) -> Claim:
    """A right attack: all pixels brighter, far across the boundary."""
    return Claim((x + by).clamp(0, 1), torch.ones(len(x), dtype=torch.bool))


def unchanged(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    return Claim(x.clone(), torch.ones(len(x), dtype=torch.bool))


def too_little(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    return shift(model, x, y, 0.05)


def white(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    """Blank, and misclassified at that."""
    return Claim(torch.ones_like(x), torch.ones(len(x), dtype=torch.bool))


def black(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    """The blank place-holder of an attack that failed, and says so."""
    return Claim(torch.zeros_like(x), torch.zeros(len(x), dtype=torch.bool))


def outside(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    return Claim(x + 0.7)


def broken(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    made = (x + 0.2).clone()
    made[1, 0, 2, 2] = torch.nan
    return Claim(made)


def backwards(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    """Towards the label."""
    return Claim(x - 0.1, torch.zeros(len(x), dtype=torch.bool))


def coupled(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    """Goes as far as the batch is large."""
    return shift(model, x, y, 0.15 + 0.01 * len(x))


def leaving_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    leaf = x.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    return shift(model, x, y)


def in_training_mode(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    model.train()
    return shift(model, x, y)


def thawed(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    for parameter in model.parameters():
        parameter.requires_grad_(not parameter.requires_grad)
    return shift(model, x, y)


def counting_batches(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    """Passes in training mode move the running means of a batch norm."""
    model.train()
    model(x.repeat(2, 1, 1, 1))
    model.eval()
    return shift(model, x, y)


def float32_alone(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    if x.dtype != torch.float32:
        raise RuntimeError("expected float")
    return coupled(model, x, y)


def raising(model: nn.Module, x: Tensor, y: Tensor) -> Claim:
    raise RuntimeError("no file /home/somebody/cache/weights.bin\nand a second line")
