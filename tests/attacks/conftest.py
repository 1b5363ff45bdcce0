"""A small convolutional classifier on scikit-learn's digits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import Look

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


class Guarded:
    """A classifier with the plainest of detectors behind it: the score of a class is minus its logit."""

    def __init__(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        self.module, self.labels = module, y
        with torch.no_grad():
            self.references, self.reference_labels = module[:-1](x), y
            self.scores = -module(x).double().gather(1, y[:, None]).squeeze(1)
        self.threshold = float(self.scores.quantile(0.95))
        self.scale = self.threshold - float(self.scores.median())

    def logits(self, x: Tensor) -> Tensor:
        return self.module(x)

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        z = self.module[:-1](x)
        logits = self.module[-1](z)
        chosen = logits.argmax(dim=1) if classes is None else classes
        return Look(logits, -logits.double().gather(1, chosen[:, None]).squeeze(1), z)

    def limits(self, quantile: float) -> Tensor:
        return torch.stack([self.scores[self.labels == c].quantile(quantile) for c in range(10)])


@pytest.fixture(scope="session")
def guard(digits: tuple[Tensor, Tensor]) -> Callable[[nn.Module], Guarded]:
    """Puts a detector behind a classifier in eval mode, whatever mode it is in now."""

    def put(module: nn.Module) -> Guarded:
        x, y = (part[:600] for part in digits)
        twin = copy.deepcopy(module).eval()
        guarded = Guarded(twin, x.to(next(twin.parameters())), y)
        guarded.module = module
        return guarded

    return put
