"""How long a pass takes on this machine: measured once on an untrained network and grey images, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks import Setup, prepare
from attacks.engine import pass_seconds
from pdm_lightning.devices import describe, strict_float32
from pdm_lightning.models import Classifier
from pdm_lightning.stages import engine
from pdm_lightning.stages.build import build_classifier

ROUNDS = 3
"""Passes that are measured; the fastest counts."""
SAMPLE = 64
"""Images of a measured training step, at most, where the CPU computes: more take longer and tell no more."""


@dataclass(frozen=True)
class Speed:
    """Seconds an image on a device, for a network of which the specification of a training tells.

    Parameters
    ----------
    folder : Path
        Of the study's output: what is measured is kept in its folder ``passes``, and used from then on.
    spec : mapping
        ``model`` and ``defense`` of a training.
    classes : int
    shape : tuple of int
        (C, H, W) of an image.
    device : torch.device
    """

    folder: Path
    spec: Mapping[str, Any]
    classes: int
    shape: tuple[int, int, int]
    device: torch.device

    def of_pass(self, batch: int, craft: Mapping[str, Any], *, graphs: bool = True) -> float:
        """Of a gradient pass as crafting runs it, in batches of so many images.

        Where a crafting has measured already how this machine does it fastest, that is the answer; else the simplest
        way is measured.

        Parameters
        ----------
        craft : mapping
            ``fold`` and ``micro_batch``.
        graphs : bool
            Whether CUDA graphs are an option.
        """
        example = self._images(batch)
        found = engine.known(self.folder, self.classes, self.spec["model"], example, craft, graphs=graphs)
        if found is not None:
            return found.seconds
        setup = Setup(fold=bool(craft["fold"]), micro_batch=craft["micro_batch"])

        def measure() -> float:
            classifier = self._classifier().eval()
            with strict_float32(), torch.enable_grad():
                ready = prepare(classifier, None, setup, keep=classifier.tapped)
                return min(pass_seconds(ready, example) for _ in range(ROUNDS))

        return self._kept({"pass": setup.as_dict()}, example, measure)

    def of_step(self, batch: int) -> float:
        """Of a training step's forward and backward pass; not of loading, the loss terms, and the optimizer's update.

        (An update takes a few operations a weight, and PyTorch imports its compiler for the first one, for a second.)
        """
        example = self._images(min(batch, SAMPLE) if self.device.type == "cpu" else batch)

        def measure() -> float:
            classifier = self._classifier().train()
            return min(_step_seconds(classifier, example) for _ in range(ROUNDS))

        return self._kept({"step": "forward and backward"}, example, measure)

    def _classifier(self) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            return build_classifier(self.spec, self.classes, self.shape[0]).to(self.device)

    def _images(self, count: int) -> Tensor:
        return torch.full((count, *self.shape), 0.5, device=self.device)

    def _kept(self, what: dict[str, Any], example: Tensor, measure: Callable[[], float]) -> float:
        """Seconds an image, from the file where they were kept; else measured now, and kept."""
        what = what | {
            "machine": describe(self.device),
            "model": {"settings": dict(self.spec["model"]), "classes": self.classes},
            "images": list(example.shape),
        }
        key = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
        path = self.folder / engine.FOLDER / f"glimpse-{key}.json"
        try:
            return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
            seconds = measure() / len(example)
        with contextlib.suppress(OSError):  # a folder that may only be read: measured anew next time
            engine.write(path, what | {"seconds": seconds})
        return seconds


def _step_seconds(classifier: Classifier, x: Tensor) -> float:
    """Seconds of one training step's passes on images (N, C, H, W)."""
    started = time.perf_counter()
    with torch.enable_grad():
        z, raw = classifier.embed_and_raw(x)
        (z.square().mean() + raw.logsumexp(dim=1).mean()).backward()
    classifier.zero_grad()
    raw.sum().item()  # waits for the device
    return time.perf_counter() - started
