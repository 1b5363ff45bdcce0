"""Which function builds which kind of node, and from which modules its result follows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pdm_lightning.stages import clean, craft, detector, features, score, training, tsne
from pdm_lightning.stages.context import Context
from pdm_lightning.store import source_hash

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

BUILDERS: dict[str, Callable[[Node, Path, Context], None]] = {
    "train": training.build,
    "features": features.build,
    "clean": clean.build,
    "tsne": tsne.build,
    "detector": detector.build,
    "craft": craft.build,
    "score": score.build,
}

_MODEL = ("pdm_lightning.models", "pdm_lightning.data")
_SOURCES: dict[str, tuple[str, ...]] = {
    "train": (*_MODEL, "pdm_lightning.losses", "pdm_lightning.lit", "pdm_lightning.stages.train"),
    "features": (*_MODEL, "pdm_lightning.stages.features"),
    "clean": ("pdm_lightning.stages.clean", "detection.evaluate"),
    "tsne": ("pdm_lightning.stages.tsne",),
    "detector": ("detection", "pdm_lightning.stages.detector"),
    "craft": ("attacks", "pdm_lightning.threat", "pdm_lightning.stages.craft"),
    "score": ("detection", "pdm_lightning.stages.score"),
}


@cache
def source(kind: str) -> str:
    """Hash of the code that a kind of artifact follows from: an artifact with another hash is stale."""
    return source_hash(_SOURCES[kind])
