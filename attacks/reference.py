"""Classifiers of which it is known what the strongest attack can do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.randomness import generators
from attacks.watched import Look

HALVINGS = 100
EXCHANGES = 2000
"""Steps of the search for a separator, at most."""
INNER = 100
"""Points at the radius, and as many at half of it, that a hidden class leaves out."""
DRAWS = 5
"""Points that are tried as the hidden one, until a plane cuts one off from the others."""
CLOSENESS = 0.999
"""Where the boundary lies, on the way from the other points (0) to the hidden one (1)."""
MARGIN = 4.0
"""By how much the logits of a hidden class lie below: cross-entropy does not saturate."""


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
        return _two(x.flatten(1) @ self.weight + self.bias)

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, twice: they are all that it makes of an image."""
        logits = self(x)
        return logits, logits


class Hidden(nn.Module):
    """Two classes, told apart by one direction of another classifier's embedding z: s = <z - c, v> - b.

    Parameters
    ----------
    classifier : nn.Module
        Has ``embed_and_logits(x)``.
    centre, direction : Tensor
        (d,) each: c and v.
    offset : float
        b.
    """

    centre: Tensor
    direction: Tensor

    def __init__(self, classifier: nn.Module, centre: Tensor, direction: Tensor, offset: float) -> None:
        super().__init__()
        self.classifier, self.offset = classifier, offset
        self.register_buffer("centre", centre)
        self.register_buffer("direction", direction)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, 2)."""
        return self.embed_and_logits(x)[1]

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The other classifier's embedding (N, d), and the logits (N, 2)."""
        z: Tensor = self.classifier.embed_and_logits(x)[0]  # type: ignore[operator]
        return z, _two((z - self.centre) @ self.direction - self.offset)


class Padded(nn.Module):
    """Two classes and two more that never win, for a loss that goes by the third or fourth largest logit."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, 4)."""
        return self.embed_and_logits(x)[1]

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding, and the logits (N, 4)."""
        z, logits = self.module.embed_and_logits(x)  # type: ignore[operator]
        low = logits.detach().amin(dim=1, keepdim=True) - MARGIN
        return z, torch.cat([logits, low, low], dim=1)


@dataclass(frozen=True)
class Unflagged:
    """A classifier in the form of an `attacks.Watched`, whose detector never raises an alarm.

    Attributes
    ----------
    module : nn.Module
        Has ``embed_and_logits(x)``.
    references, reference_labels : Tensor
        (M, d) embeddings and (M,) int64 classes of clean images.
    """

    module: nn.Module
    references: Tensor
    reference_labels: Tensor
    threshold: float = 1.0
    scale: float = 1.0

    def logits(self, x: Tensor) -> Tensor:
        """Logits (n, K)."""
        return self.look(x).logits

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        """Logits, scores of zero with a gradient of zero, and embeddings."""
        z, logits = self.module.embed_and_logits(x)  # type: ignore[operator]
        return Look(logits, 0 * logits.double().sum(dim=1), z)

    def limits(self, quantile: float) -> Tensor:
        """(K,) ones: above every score."""
        return torch.ones(int(self.reference_labels.max()) + 1, dtype=torch.float64)


def reachable(model: Linear, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
    """By how much the margin of the label can fall inside a ball and the box: (N,) float64, exact.

    With g = |w| and r the room that the box leaves in the direction that lowers the margin: in the L-infinity ball
    sum_i g_i min(eps, r_i); in the L2 ball sum_i g_i min(r_i, t g_i), with the largest t for which that step is no
    longer than eps (the Karush-Kuhn-Tucker conditions of a linear programme in ball and box), found by bisection.

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
    low = torch.zeros_like(flat[:, :1])
    high = torch.full_like(low, 1 / float(size[size > 0].min()))  # every pixel at its end of the box
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        inside = torch.minimum(room, middle * size).norm(dim=1, keepdim=True) <= eps
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return (size * torch.minimum(room, high * size)).sum(dim=1)


def around(image: Tensor, norm: str, eps: float, count: int, generator: torch.Generator) -> Tensor:
    """(count, C, H, W) random points at the distance eps of an image (1, C, H, W), cut off at the box.

    ``linf``: corners of the ball. ``l2``: uniform on the sphere.
    """
    drawn = torch.randn(count, *image.shape[1:], generator=generator).to(image)
    length = drawn.flatten(1).norm(dim=1)[:, None, None, None]
    return (image + eps * (drawn.sign() if norm == "linf" else drawn / length)).clamp(0, 1)


@torch.no_grad()
def hide(
    classifier: nn.Module, image: Tensor, norm: str, eps: float, seed: int, number: int
) -> tuple[Hidden, Tensor] | None:
    """Hide an adversarial image near a clean one (Zimmermann et al. 2022, section 4).

    A plane through the classifier's embedding cuts one random point at the distance eps off from the image, from
    `INNER` others at that distance, so that mere noise is not enough, and from `INNER` at half of it.

    Parameters
    ----------
    classifier : nn.Module
        Has ``embed_and_logits(x)``; in eval mode.
    image : Tensor
        (1, C, H, W) in [0, 1].
    norm, eps
        The ball.
    seed, number : int
        The only source of randomness; `number` is the image's.

    Returns
    -------
    tuple of Hidden and Tensor, or None
        The classifier of which the image is class 0, and the image of class 1 (1, C, H, W). None where no plane was
        found, or none that holds in the precision of the classifier.
    """
    (generator,) = generators(seed, torch.tensor([number]), "hidden")
    points = [around(image, norm, radius, INNER, generator) for radius in (eps / 2, eps)]
    x = torch.cat([image, *points])
    z = classifier.embed_and_logits(x)[0].double()  # type: ignore[operator]
    for _ in range(DRAWS):
        outer = around(image, norm, eps, 1, generator)
        far = classifier.embed_and_logits(outer)[0].double()[0]  # type: ignore[operator]
        found = _cut(classifier, z, far, image.dtype)
        if found is None:
            continue
        taken = found(torch.cat([x, outer])).argmax(dim=1)
        if taken[-1] == 1 and not taken[:-1].any():
            return found, outer
    return None


def _cut(classifier: nn.Module, z: Tensor, far: Tensor, dtype: torch.dtype) -> Hidden | None:
    """The classifier whose class 1 begins just before `far` (d,), seen from all of `z` (n, d), or None."""
    centre, spread = z.mean(dim=0), z.std(dim=0)
    # a feature that stands still among the others would count for all the rest, and tells of a dead unit alone
    spread = spread.clamp(min=max(1e-2 * float(spread.max()), 1e-12))
    direction = separator((z - centre) / spread, (far - centre) / spread) / spread
    heights, top = (z - centre) @ direction, (far - centre) @ direction
    gap = float(top - heights.max())
    if not gap > 0:
        return None
    scale = MARGIN / gap
    offset = scale * (float(top) - (1 - CLOSENESS) * gap)
    return Hidden(classifier, centre.to(dtype), (scale * direction).to(dtype), offset).eval()


def separator(inner: Tensor, outer: Tensor) -> Tensor:
    """Normal (d,) of the plane that leaves the widest margin between a point and others: a hard-margin SVM, exact.

    It points from the nearest point of the others' convex hull to `outer`: the nearest point by the exchange algorithm
    of Mitchell, Demyanov and Malozemov (1974). Where `outer` lies in the hull, what is left is short and separates
    nothing.

    Parameters
    ----------
    inner : Tensor
        (n, d) float64, the others.
    outer : Tensor
        (d,).
    """
    points = inner - outer
    share = torch.zeros(len(points), dtype=points.dtype)
    share[points.square().sum(dim=1).argmin()] = 1
    nearest = share @ points
    for _ in range(EXCHANGES):
        height = points @ nearest
        best, worst = height.argmin(), height.masked_fill(share <= 0, -torch.inf).argmax()
        gain = height[worst] - height[best]
        if gain <= 1e-9 * nearest.square().sum():
            break
        step = points[worst] - points[best]
        moved = torch.minimum(share[worst], gain / step.square().sum())
        share[worst] -= moved
        share[best] += moved
        nearest = nearest - moved * step
    return -nearest


def _two(score: Tensor) -> Tensor:
    """Scores (N,) to logits (N, 2) whose difference they are."""
    return torch.stack([-score, score], dim=1) / 2
