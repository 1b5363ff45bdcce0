"""What a detector sees: stored features of a data set, or a lazy view of a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, Protocol

from torch import Tensor, nn

LAYERS = ("embedding", "logits")
"""The layers that every classifier has under these names; any other name is that of a submodule."""


class Embedder(Protocol):
    """A classifier that gives its embedding and its readout logits in one pass."""

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, C, H, W) in [0, 1] to embeddings (N, d) and readout logits (N, K)."""
        ...


def _check_features(embeddings: Tensor, logits: Tensor, layers: Mapping[str, Tensor]) -> None:
    if embeddings.dim() != 2 or logits.dim() != 2 or len(embeddings) != len(logits):
        raise ValueError(
            f"embeddings must be (N, d) and logits (N, K) with one N, "
            f"got {tuple(embeddings.shape)} and {tuple(logits.shape)}"
        )
    for name, layer in layers.items():
        if layer.dim() != 2 or len(layer) != len(logits):
            raise ValueError(f"layer {name!r} must be ({len(logits)}, d), got {tuple(layer.shape)}")


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
    layers : mapping of str to Tensor
        (N, d_l) float each: further layers by the name of their submodule, see `tapped`.
    images : Tensor, optional
        (N, C, H, W) in [0, 1], for detectors that look at images.
    model : Embedder, optional
        The classifier, for detectors that ask it about other images (squeezed ones, for example).

    Raises
    ------
    ValueError
        Where shapes do not belong together or a label is no class of the logits.
    """

    embeddings: Tensor
    logits: Tensor
    labels: Tensor
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    images: Tensor | None = None
    model: Any = None

    def __post_init__(self) -> None:
        _check_features(self.embeddings, self.logits, self.layers)
        if self.labels.shape != self.logits.shape[:1]:
            raise ValueError(f"labels must be ({len(self.logits)},), got {tuple(self.labels.shape)}")
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.num_classes:
            raise ValueError(
                f"labels must lie in 0..{self.num_classes - 1} (the logits have {self.num_classes} columns), "
                f"found {int(self.labels.min())}..{int(self.labels.max())}"
            )
        if self.images is not None and len(self.images) != len(self):
            raise ValueError(f"{len(self)} features need as many images, got {len(self.images)}")

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
        """Give the (N, d) tensor of a layer: "embedding", "logits", or a further one by its name."""
        return pick_layer(name, self.embeddings, self.logits, self.layers)

    def view(self, rows: slice = slice(None)) -> View:
        """Look at some rows, as a detector scores them."""
        images = None if self.images is None else self.images[rows]
        stored = self.embeddings[rows], self.logits[rows]
        layers = {name: layer[rows] for name, layer in self.layers.items()}
        return View(images, self.model, stored, layers)

    def views(self, size: int) -> Iterator[View]:
        """Look at all rows, `size` at a time: a detector that asks the model needs memory for each row."""
        for start in range(0, len(self), size):
            yield self.view(slice(start, start + size))


def pick_layer(name: str, embeddings: Tensor, logits: Tensor, layers: Mapping[str, Tensor]) -> Tensor:
    """Choose a layer by name; ValueError for one that is not there."""
    known = {"embedding": embeddings, "logits": logits, **layers}
    if name not in known:
        raise ValueError(f"unknown layer {name!r}: choose one of {', '.join(known)}")
    return known[name]


@contextmanager
def tapped(model: nn.Module, names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Catch what layers put out while a model runs; passes of other threads through it go by.

    Parameters
    ----------
    model : nn.Module
    names : collection of str
        Names of its submodules, as in ``model.named_modules()``.

    Yields
    ------
    dict of str to Tensor
        By name, filled by the pass: (N, d) each, feature maps (N, C, ...) averaged over all that follows the
        channels (Lee et al. 2018, section 2.2).

    Raises
    ------
    ValueError
        For a name that is no submodule.
    """
    modules = dict(model.named_modules())
    unknown = [name for name in names if name not in modules]
    if unknown:
        # the outermost ones are the stages that people mean
        some = sorted((name for name in modules if name), key=lambda name: name.count("."))[:12]
        raise ValueError(f"the model has no layer {unknown[0]!r}: choose e.g. {', '.join((*LAYERS, *some))}")
    caught: dict[str, Tensor] = {}
    thread = get_ident()

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if get_ident() == thread:
                caught[name] = output.flatten(2).mean(dim=2) if output.dim() > 2 else output

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


class View:
    """A lazy look at a batch: nothing is computed before it is asked for, and nothing twice.

    Built by `from_features` (cached features, no images) or `from_model` (images; the gradient flows back to
    them).
    """

    def __init__(
        self,
        x: Tensor | None,
        model: Embedder | None,
        features: tuple[Tensor, Tensor] | None = None,
        layers: Mapping[str, Tensor] | Sequence[str] = (),
    ) -> None:
        self._x, self._model, self._features = x, model, features
        self._names = tuple(layers)
        self._layers: Mapping[str, Tensor] = layers if isinstance(layers, Mapping) else {}

    @classmethod
    def from_features(
        cls, embeddings: Tensor, logits: Tensor, layers: Mapping[str, Tensor] | None = None
    ) -> View:
        """View stored embeddings (N, d), readout logits (N, K) and, by name, further layers (N, d_l)."""
        _check_features(embeddings, logits, layers or {})
        return cls(None, None, (embeddings, logits), layers or {})

    @classmethod
    def from_model(cls, model: Embedder, x: Tensor, layers: Sequence[str] = ()) -> View:
        """View images x (N, C, H, W) through a classifier; the one forward pass waits until it is needed.

        `layers` names further layers that the pass shall keep, see `tapped`.
        """
        return cls(x, model, layers=tuple(name for name in layers if name not in LAYERS))

    def _get(self) -> tuple[Tensor, Tensor]:
        if self._features is None:
            assert self._model is not None and self._x is not None
            if self._names:
                assert isinstance(self._model, nn.Module)
                with tapped(self._model, self._names) as caught:
                    embeddings, logits = self._model.embed_and_logits(self._x)
                self._layers = caught
            else:
                embeddings, logits = self._model.embed_and_logits(self._x)
            _check_features(embeddings, logits, self._layers)
            self._features = (embeddings, logits)
        return self._features

    @property
    def x(self) -> Tensor:
        """The images; ValueError where the view stands on stored features."""
        if self._x is None:
            raise ValueError("this view has no images: build it with View.from_model(model, x)")
        return self._x

    def at(self, x: Tensor) -> View:
        """View other images (N, C, H, W) through the same classifier; ValueError where the view has none."""
        if self._model is None:
            raise ValueError("this view has no classifier: build it with View.from_model(model, x)")
        return View.from_model(self._model, x, self._names)

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
        """Give the (N, d) tensor of a layer: "embedding", "logits", or a further one by its name."""
        embeddings, logits = self._get()
        return pick_layer(name, embeddings, logits, self._layers)
