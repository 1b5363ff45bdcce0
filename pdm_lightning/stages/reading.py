"""From the key of an artifact to the object that it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from pdm_lightning.stages import craft, detector, features
from pdm_lightning.stages.context import open_classifier
from pdm_lightning.store import Artifact, Store


def _scores(artifact: Artifact) -> dict[str, Any]:
    return load_file(artifact.file("scores.safetensors")) | {"metrics": artifact.json("score.json")}


_READERS: dict[str, Callable[[Artifact], Any]] = {
    "train": open_classifier,
    "proxy": open_classifier,
    "features": features.read,
    "clean": lambda artifact: artifact.json("clean.json"),
    "splits": lambda artifact: artifact.json("splits.json"),
    "gradients": lambda artifact: artifact.json("gradients.json"),
    "examples": craft.read,
    "detector": detector.read,
    "craft": craft.read,
    "validity": lambda artifact: artifact.json("validity.json"),
    "noise": lambda artifact: load_file(artifact.file("noise.safetensors")) | artifact.json("noise.json"),
    "alarms": lambda artifact: load_file(artifact.file("scores.safetensors")) | artifact.json("alarms.json"),
    "selftest": lambda artifact: artifact.json("selftest.json"),
    "score": _scores,
    "compare": lambda artifact: artifact.json("compare.json"),
    "worst": lambda artifact: load_file(artifact.file("worst.safetensors")) | artifact.json("worst.json"),
    "val_clean": lambda artifact: artifact.json("clean.json"),
    "val_detector": detector.read,
    "val_craft": craft.read,
    "val_score": _scores,
    "tsne": lambda artifact: load_file(artifact.file("tsne.safetensors")) | artifact.json("tsne.json"),
}


def read(key: str, output: str | Path = "outputs") -> Any:
    """Open the artifact whose key begins with ``key`` in the store under ``output``; see `pdm_lightning.load`."""
    artifact = Store(Path(output) / "store").find(key)
    return _READERS[artifact.kind](artifact)
