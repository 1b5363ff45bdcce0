"""What a detector sees: stored features of a data set, or a lazy view of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

LAYERS = ("embedding", "logits")


class Embedder(Protocol):
    """A classifier that gives its embedding and its readout logits in one pass."""

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, C, H, W) in [0, 1] to embeddings (N, d) and readout logits (N, K)."""
        ...


def _check_features(embeddings: Tensor, logits: Tensor) -> None:
    if embeddings.dim() != 2 or logits.dim() != 2 or len(embeddings) != len(logits):
        raise ValueError(
            f"embeddings must be (N, d) and logits (N, K) with one N, "
            f"got {tuple(embeddings.shape)} and {tuple(logits.shape)}"
        )


@dataclass
class Features:
    """What a classifier says of a set of images.

    Parameters
    ----------
    embeddings : Tensor
        (N, d) float, the embedding layer.
    logits : Tensor
        (N, K) float, the *readout* logits: their argmax is the prediction.
    labels : Tensor
        (N,) int64, the true classes, in 0..K-1.

    Raises
    ------
    ValueError
        Where shapes do not belong together or a label is no class of the logits.
    """

    embeddings: Tensor
    logits: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        _check_features(self.embeddings, self.logits)
        if self.labels.shape != self.logits.shape[:1]:
            raise ValueError(f"labels must be ({len(self.logits)},), got {tuple(self.labels.shape)}")
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.num_classes:
            raise ValueError(
                f"labels must lie in 0..{self.num_classes - 1} (the logits have {self.num_classes} columns), "
                f"found {int(self.labels.min())}..{int(self.labels.max())}"
            )

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self.logits.shape[1]

    @property
    def predicted(self) -> Tensor:
        """(N,) int64, the argmax of the readout logits."""
        return self.logits.argmax(dim=1)

    def layer(self, name: str) -> Tensor:
        """Give the tensor of the layer `name`: "embedding" or "logits"."""
        return pick_layer(name, self.embeddings, self.logits)


def pick_layer(name: str, embeddings: Tensor, logits: Tensor) -> Tensor:
    """Choose between the two layers that detectors know; ValueError for any other name."""
    if name not in LAYERS:
        raise ValueError(f"unknown layer {name!r}: choose one of {', '.join(LAYERS)}")
    return embeddings if name == "embedding" else logits


class View:
    """A lazy look at a batch: nothing is computed before it is asked for, and nothing twice.

    Built by `from_features` (cached features, no images) or `from_model` (images; the gradient flows back to
    them).
    """

    def __init__(
        self, x: Tensor | None, model: Embedder | None, features: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self._x, self._model, self._features = x, model, features

    @classmethod
    def from_features(cls, embeddings: Tensor, logits: Tensor) -> View:
        """View stored embeddings (N, d) and readout logits (N, K)."""
        _check_features(embeddings, logits)
        return cls(None, None, (embeddings, logits))

    @classmethod
    def from_model(cls, model: Embedder, x: Tensor) -> View:
        """View images x (N, C, H, W) through a classifier; the one forward pass waits until it is needed."""
        return cls(x, model)

    def _get(self) -> tuple[Tensor, Tensor]:
        if self._features is None:
            assert self._model is not None and self._x is not None
            embeddings, logits = self._model.embed_and_logits(self._x)
            _check_features(embeddings, logits)
            self._features = (embeddings, logits)
        return self._features

    @property
    def x(self) -> Tensor:
        """The images; ValueError where the view stands on stored features."""
        if self._x is None:
            raise ValueError("this view has no images: build it with View.from_model(model, x)")
        return self._x

    @property
    def embeddings(self) -> Tensor:
        """(N, d) embeddings."""
        return self._get()[0]

    @property
    def logits(self) -> Tensor:
        """(N, K) readout logits."""
        return self._get()[1]

    @property
    def predicted(self) -> Tensor:
        """(N,) int64, the argmax of the readout logits."""
        return self.logits.argmax(dim=1)

    def layer(self, name: str) -> Tensor:
        """Give the tensor of the layer `name`: "embedding" or "logits"."""
        return pick_layer(name, *self._get())
