"""What a loss term sees, and what it has to offer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass
class Outputs:
    """A classifier's outputs on a batch of B single images or of B pairs.

    A batch of pairs holds the first images of all pairs in its first half, the second images in its second.

    Parameters
    ----------
    embeddings
        (B or 2B, d) pre-logits z.
    logits
        (B or 2B, K) raw logits o (not the readout).
    labels
        (B or 2B,) int64 classes.
    same
        (B,) bool, true where the two images of a pair are of one class; None for single images.
    teacher
        (B or 2B, K) readout logits of the classifier that is distilled, on the same images; None without one.
    readout
        (B or 2B, K) readout logits; None where the raw logits are read out.
    layers
        (B or 2B, d_l) each: outputs of the layers that the loss sees beside the embedding, feature maps averaged
        over their pixels.
    places
        Where the loss takes gradients: by name ("input", "embedding" or a layer's) what the logits were computed
        from, (n, ...) of each forward pass, together B or 2B rows.

    Raises
    ------
    ValueError
        If the numbers of rows disagree, or the teacher knows other classes.
    """

    embeddings: Tensor
    logits: Tensor
    labels: Tensor
    same: Tensor | None = None
    teacher: Tensor | None = None
    readout: Tensor | None = None
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    places: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.labels)
        if len(self.embeddings) != rows or len(self.logits) != rows:
            raise ValueError(
                f"embeddings, logits and labels have {len(self.embeddings)}, {len(self.logits)} and {rows} "
                "rows: give one row an image"
            )
        if self.same is not None and 2 * len(self.same) != rows:
            raise ValueError(
                f"{len(self.same)} pairs need {2 * len(self.same)} images, got {rows}: "
                "put the first images of all pairs before the second images"
            )
        if self.teacher is not None and self.teacher.shape != self.logits.shape:
            raise ValueError(
                f"the teacher's logits are {tuple(self.teacher.shape)}, the classifier's "
                f"{tuple(self.logits.shape)}: both need the same images and classes"
            )

    @property
    def paired(self) -> bool:
        """Whether the batch consists of pairs."""
        return self.same is not None

    def branches(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Give (embeddings, logits, labels) of each branch: one of single images, two of pairs."""
        if self.same is None:
            return [(self.embeddings, self.logits, self.labels)]
        half = len(self.same)
        first, second = slice(None, half), slice(half, None)
        return [(self.embeddings[part], self.logits[part], self.labels[part]) for part in (first, second)]

    def read(self) -> Tensor:
        """Give the (B or 2B, K) readout logits."""
        return self.logits if self.readout is None else self.readout

    def layer(self, name: str) -> Tensor:
        """Give the (B or 2B, d) output of a layer: "embedding", or one of `layers`; ValueError for another one."""
        known = {"embedding": self.embeddings, **self.layers}
        if name not in known:
            raise ValueError(
                f"the batch holds no layer {name!r}, but {', '.join(known)}: look with the loss's taps"
            )
        return known[name]

    def mean(self, values: Tensor) -> Tensor:
        """Take the mean of an image's values (B or 2B,); of pairs, the sum of the two branches' means."""
        # both branches are of one size
        return values.mean() * len(self.branches())

    def slopes(self, value: Tensor, names: Sequence[str], create_graph: bool) -> list[Tensor]:
        """Differentiate a scalar with respect to some of the `places`.

        A batch norm in train mode couples the images of a batch: the slopes of a sum over images then hold what an
        image does to the others.

        Parameters
        ----------
        value
            A scalar that was computed from them.
        names
            Of the places.
        create_graph
            Whether the slopes shall be differentiable, too.

        Returns
        -------
        list of (B or 2B, n) Tensor
            By place, all that follows the rows flattened.

        Raises
        ------
        ValueError
            If a place is not there, or the value does not depend on it.
        """
        missing = [name for name in names if name not in self.places]
        if missing:
            raise ValueError(f"no gradient reaches {missing[0]!r} in this batch: look with the loss's places")
        parts = [part for name in names for part in self.places[name]]
        found = iter(torch.autograd.grad(value, parts, None, True, create_graph, allow_unused=True))
        slopes = []
        for name in names:
            own = [next(found) for _ in self.places[name]]
            if any(part is None for part in own):
                raise ValueError(
                    f"the logits do not depend on {name!r}: name a layer that they are computed from"
                )
            slopes.append(torch.cat([part.flatten(1) for part in own]))
        return slopes


class Term(nn.Module, ABC):
    """One term of a loss: a scalar of :class:`Outputs`.

    A term with ``needs_pairs`` asks the data module for pairs of images. A term that trains the logits names
    the ``readout`` that it trains, "direct" or "reverse"; None fits both. A term that sees more layers than the
    embedding names their submodules of the classifier in ``taps``; one that takes gradients says where in ``places``
    ("input", "embedding", or a submodule).
    """

    needs_pairs: ClassVar[bool] = False
    readout: ClassVar[str | None] = None
    taps: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    def floor(self, num_classes: int) -> float:
        """Smallest value of the term on one branch; the excess over it is logged where it is not 0."""
        return 0.0

    @abstractmethod
    def forward(self, out: Outputs) -> Tensor:
        """Compute the unweighted term, a scalar."""


def weights_of(layers: Mapping[str, float] | None, default: str) -> dict[str, float]:
    """Check the weights of a term's layers; the default alone, with weight 1, where there are none.

    Parameters
    ----------
    layers
        Weight by name, finite and >= 0; a layer of weight 0 is left out.
    default
        Name of a layer.

    Raises
    ------
    ValueError
        If they are no weights, or none is above 0.
    """
    if layers is None:
        return {default: 1.0}
    if not isinstance(layers, Mapping):
        raise ValueError(f"layers {layers!r} are no weights by name: write {{{default}: 1.0}}")
    for name, weight in layers.items():
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
            raise ValueError(f"layers: weight {weight!r} of {name!r} is not a finite number >= 0: change it")
    kept = {str(name): float(weight) for name, weight in layers.items() if weight > 0}
    if not kept:
        raise ValueError(f"layers {dict(layers)} leave nothing to work on: give one a weight above 0")
    return kept


def root(squares: Tensor) -> Tensor:
    """Square root with gradient 0 at 0, where the plain one has infinity (and NaN upstream)."""
    positive = squares > 0
    return torch.where(positive, squares, 1.0).sqrt() * positive
