"""What stages share while a study runs: the store, data sets and classifiers that are in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detection import mapped
from detection.features import LAYERS, View
from pdm_lightning.data import ImageData, load_data, to_unit
from pdm_lightning.device_lease import gpus, leased
from pdm_lightning.devices import pick_device, set_threads, strict_float32
from pdm_lightning.models import Classifier
from pdm_lightning.stages.build import load_classifier
from pdm_lightning.store import Artifact, Store

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

ANY_GPU = ("auto", "cuda")
"""What ``trainer.device`` says where any GPU will do."""


class Context:
    """Shared state of one process that runs nodes of a plan.

    Parameters
    ----------
    store : Store
        Where artifacts are.
    progress : bool
        Whether long work shows how far it is.

    Attributes
    ----------
    watch : callable or None
        Gets the node and the log's rows after each segment, but the last, of a training; what it raises ends the
        training, whose checkpoint stays.
    """

    def __init__(self, store: Store, *, progress: bool = True) -> None:
        self.store, self.progress = store, progress
        self.watch: Callable[[Node, Sequence[Mapping[str, float]]], None] | None = None
        self._data: dict[str, ImageData] = {}
        self._classifiers: dict[str, Classifier] = {}
        self._held: list[int] = []

    @contextmanager
    def at_work(self, trainer: Mapping[str, Any], count: int = 1) -> Iterator[None]:
        """Hold `count` GPUs, where ``trainer.device`` leaves it open which: no other process gets them meanwhile.

        Raises
        ------
        ValueError
            Where there are fewer GPUs.
        """
        names = gpus() if trainer["device"] in ANY_GPU else []
        if not names:
            yield
            return
        with leased(names, count) as held:
            self._held = held
            try:
                yield
            finally:
                self._held = []

    def artifact(self, node: Node) -> Artifact:
        """The published artifact of a node."""
        return self.store.open(node.kind, node.key)

    def device(self, node: Node) -> torch.device:
        """Device that the node's trainer asks for: the first of those held, where that leaves it open which."""
        return self.devices(node)[0]

    def devices(self, node: Node) -> list[torch.device]:
        """All devices that are held for the node, or the one that its trainer asks for."""
        trainer = node.runtime["trainer"]
        set_threads(trainer.get("threads"))
        if self._held and trainer["device"] in ANY_GPU:
            return [torch.device("cuda", index) for index in self._held]
        return [pick_device(trainer["device"])]

    def data(self, node: Node) -> ImageData:
        """Data set of a node; one at a time is kept in memory."""
        place = json.dumps(node.runtime["data"], sort_keys=True, default=str)
        if place not in self._data:
            self._data = {place: load_data(node.runtime["data"])}
        return self._data[place]

    def classifier(self, node: Node, device: torch.device) -> Classifier:
        """Trained classifier of a ``train`` node, in eval mode on the device; one at a time is kept."""
        if node.key not in self._classifiers:
            self._classifiers = {node.key: open_classifier(self.artifact(node))}
        return self._classifiers[node.key].to(device)

    def release(self) -> None:
        """Forget data sets and classifiers."""
        self._data, self._classifiers = {}, {}


def open_classifier(artifact: Artifact) -> Classifier:
    """Rebuild the classifier of a ``train`` artifact, in eval mode."""
    shape = artifact.json("data.json")
    classifier = load_classifier(
        artifact.manifest["spec"],
        artifact.path,
        num_classes=len(shape["classes"]),
        in_channels=shape["shape"][0],
    )
    return classifier.eval()


@torch.no_grad()
def embed(
    classifier: Classifier,
    images: Tensor,
    device: torch.device,
    report: Callable[[int], None] | None = None,
    layers: Sequence[str] = (),
    rows: Tensor | None = None,
) -> dict[str, Tensor]:
    """Embeddings, readout logits and, where they are named, further layers of images.

    Parameters
    ----------
    images : (N, C, H, W) uint8 or float in [0, 1] tensor
    rows : (M,) int64 tensor, optional
        The images to look at, all by default.

    Returns
    -------
    dict of str to Tensor
        ``embedding`` (M, d), ``logits`` (M, K) and, by name, the layers (M, d_l): float32, on the CPU. What is too
        large for memory lies in a file, see `detection.mapped.empty`.
    """
    count = len(images) if rows is None else len(rows)
    if not count:
        raise ValueError("there are no images to embed")
    names, batch = list(dict.fromkeys((*LAYERS, *layers))), _batch(images)
    found: dict[str, Tensor] = {}
    with strict_float32():
        for start in range(0, count, batch):
            place = slice(start, min(start + batch, count))
            part = images[place] if rows is None else images[rows[place]]
            view = View.from_model(classifier, to_unit(part).to(device), names)
            for name in names:
                layer = view.layer(name)
                if name not in found:
                    found[name] = mapped.empty((count, layer.shape[1]), layer.dtype)
                mapped.release(found[name][place].copy_(layer))
            if report is not None:
                report(len(part))
    return found


def _batch(images: Tensor) -> int:
    """Images that pass at a time: 512 small ones, fewer of those whose activations would fill the memory."""
    return max(1, min(512, 2**23 // max(1, images[0].numel())))


def write_json(path: Any, content: Any) -> None:
    """Write a JSON file that people can read."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
