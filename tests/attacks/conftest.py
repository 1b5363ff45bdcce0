"""A small convolutional classifier on scikit-learn's digits."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.from_numpy(data.images).float().unsqueeze(1) / 16, torch.from_numpy(data.target)


@pytest.fixture(scope="session")
def trained(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """Convolutions, BatchNorm, dropout: a model whose mode matters; in eval mode, accuracy well above 0.9."""
    x, y = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.LeakyReLU(0.1)]
        convolutions += [nn.Conv2d(16, 16, 3, stride=2), nn.LeakyReLU(0.1)]
        model = nn.Sequential(*convolutions, nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 10))
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(120):
            batch = torch.randint(1000, (64,))
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    model.zero_grad()
    model.eval()
    assert (model(x[1000:]).argmax(1) == y[1000:]).float().mean() > 0.9
    return model


@pytest.fixture
def images(digits: tuple[Tensor, Tensor]) -> Tensor:
    """Sixteen test digits with many saturated pixels."""
    return digits[0][1000:1016].clone()
