"""A small classifier with a density detector behind it, and ways to break that detector: for tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.watched import Look

SIDE = 4  # images are 1 x 4 x 4
CLASSES = 4
POINTS = 60  # images of each class
BANDWIDTH = 0.3

Distort = Callable[[Tensor], Tensor]
"""What becomes of the honest (n,) scores before anyone sees them."""


class Net(nn.Module):
    """Images (n, 1, 4, 4) to a 6-dimensional embedding to logits (n, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Flatten(), nn.Linear(SIDE**2, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 6)
        )
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


def blobs(seed: int, count: int = POINTS, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """(4 count, 1, 4, 4) noisy images of four random patterns, and their classes."""
    patterns = torch.rand(
        CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    labels = torch.arange(CLASSES).repeat_interleave(count)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return (0.25 + 0.5 * patterns[labels] + 0.08 * noise).clamp(0, 1).to(dtype), labels


@cache
def _trained() -> dict[str, Tensor]:
    x, y = blobs(0)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net.state_dict()


class ToyWatched:
    """Implements `attacks.Watched`: the score is -log of a kernel density per class, in float64.

    Parameters
    ----------
    distort : callable, optional
        Breaks the detector: `constant`, `masked`, `squashed` and `clamped` below, or another.
    dtype : torch.dtype
        Of weights and images.
    """

    def __init__(self, distort: Distort = lambda scores: scores, dtype: torch.dtype = torch.float32) -> None:
        self.module = Net()
        self.module.load_state_dict(_trained())
        self.module.to(dtype).eval()
        self.dtype, self.distort = dtype, distort
        x, y = blobs(0, dtype=dtype)
        with torch.no_grad():
            self.kernels = self.module.embed(x).double().view(CLASSES, POINTS, -1)
            fresh, labels = blobs(1, dtype=dtype)
            known = self.look(fresh, labels).scores
            self.groups = known.view(CLASSES, POINTS).sort(dim=1).values
            self.threshold = float(known.quantile(0.95))
            spread = self.threshold - float(known.median())
            self.scale = spread if spread > 0 else 1.0
            typical = self.look(x, y).scores <= self.limits(0.5)[y]
            self.references, self.reference_labels = self.module.embed(x)[typical], y[typical]

    def logits(self, x: Tensor) -> Tensor:
        return self.module(x)

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        z = self.module.embed(x)
        logits = self.module.head(z)
        kernels = self.kernels[logits.argmax(dim=1) if classes is None else classes]
        exponents = -(z.double()[:, None] - kernels).square().sum(dim=2) / (2 * BANDWIDTH**2)
        return Look(logits, self.distort(-exponents.logsumexp(dim=1)), z)

    def limits(self, quantile: float) -> Tensor:
        return self.groups.quantile(quantile, dim=1)

    def images(self, count: int = 10) -> tuple[Tensor, Tensor]:
        """Fresh clean images, `count` of each class, and their classes."""
        return blobs(2, count, self.dtype)


def constant(scores: Tensor) -> Tensor:
    """A detector that says the same of every image."""
    return torch.zeros_like(scores)


def masked(scores: Tensor) -> Tensor:
    """A detector that keeps its gradient to itself."""
    return scores.detach()


def squashed(scores: Tensor) -> Tensor:
    """A detector whose score saturates: its gradient is tiny far from the threshold, never zero in float64."""
    return torch.sigmoid(scores / 4)


def clamped(scores: Tensor) -> Tensor:
    """A detector whose score is cut off a little above its alarm: no gradient where it is loudest."""
    return scores.clamp(max=6.0)
