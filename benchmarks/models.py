"""Small networks to measure with, and a short training for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdm_lightning.models import Classifier, ResNet

BATCH = 64


def small_resnet(
    depth: int = 8,
    in_channels: int = 1,
    num_classes: int = 10,
    preact: bool = False,
    widths: Sequence[int] = (16, 32, 64),
) -> Classifier:
    """An untrained residual network for small images; post-activation unless `preact`."""
    backbone = ResNet(depth, in_channels, widths, preact)
    return Classifier(backbone, backbone.embedding_dim, num_classes)


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int, seed: int) -> None:
    """Adam on the cross entropy, 64 images a step, learning rate falling from 3e-3 to 0; ends in eval mode.

    Parameters
    ----------
    x, y
        (N, C, H, W) images in [0, 1] and (N,) labels.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, max(1, steps))
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
    model.zero_grad()
    model.eval()
