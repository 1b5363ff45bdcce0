"""Networks that the tests wrap."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F


class Heads(nn.Module):
    """Two linear heads of which `give` says what becomes of them."""

    def __init__(self, give, second=3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.main, self.aux = nn.Linear(4, 3), nn.Linear(4, second)
        self.give = give

    def forward(self, x):
        z = self.body(x)
        return self.give(self.main(z), self.aux(2 * z))


class Functional(nn.Module):
    """Its head is no layer, though a hidden layer has as many outputs as there are classes."""

    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(64, classes)
        self.weight = nn.Parameter(torch.randn(classes, classes))

    def forward(self, x):
        return F.linear(self.hidden(x.flatten(1)).tanh(), self.weight)


class HuggingFaceLike(nn.Module):
    def __init__(self):
        super().__init__()
        self.vit, self.classifier = nn.Linear(64, 5), nn.Linear(5, 3)

    def forward(self, pixel_values, labels=None):
        return SimpleNamespace(loss=None, logits=self.classifier(self.vit(pixel_values.flatten(1)).tanh()))


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class As(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        return x.to(self.dtype)


class Logarithm(nn.Module):
    def forward(self, x):
        return x.log()


def small(*after: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3), *after).eval()


def images(count=4, channels=1, side=8, **more):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1), **more)
