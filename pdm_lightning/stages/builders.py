"""Which function builds which kind of node, and from which modules its result follows."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdm_lightning.store import source_hash

if TYPE_CHECKING:
    from pdm_lightning.stages.context import Context
    from pdm_lightning.study.plan import Node

    Build = Callable[[Node, Path, Context], Mapping[str, Any] | None]


def _later(module: str, name: str = "build") -> Build:
    """A stage's function, imported when it is called: who only plans, or lists a store, waits for none of them."""

    def build(node: Node, folder: Path, context: Context) -> Mapping[str, Any] | None:
        stage: Build = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        return stage(node, folder, context)

    build.__module__, build.__name__ = f"{__package__}.{module}", name
    return build


BUILDERS: dict[str, Build] = {
    "train": _later("training"),
    "proxy": _later("proxy"),
    "features": _later("features"),
    "clean": _later("clean"),
    "tsne": _later("tsne"),
    "splits": _later("splits"),
    "gradients": _later("gradients"),
    "bound": _later("bound"),
    "layer_gradients": _later("layer_gradients"),
    "walk": _later("walk"),
    "examples": _later("craft"),
    "detector": _later("detector"),
    "craft": _later("craft"),
    "validity": _later("validity"),
    "noise": _later("noise"),
    "alarms": _later("noise", "alarms"),
    "selftest": _later("selftest"),
    "score": _later("score"),
    "compare": _later("compare"),
    "average": _later("average"),
    "worst": _later("worst"),
    "rank": _later("bound", "rank"),
    "bandwidths": _later("bandwidths"),
    "val_clean": _later("validation", "clean"),
    "val_detector": _later("validation", "fit"),
    "val_craft": _later("craft"),
    "val_score": _later("validation", "score"),
}

_MODEL = ("pdm_lightning.models", "pdm_lightning.stages.build", "pdm_lightning.seeding")
_EMBED = (
    *_MODEL,
    "detection.features",
    "detection.mapped",
    "pdm_lightning.data",
    "pdm_lightning.devices",
    "pdm_lightning.stages.context",
)
_TRAIN = (
    *_EMBED,
    "pdm_lightning.losses",
    "pdm_lightning.lit",
    "pdm_lightning.norm",
    "pdm_lightning.optimization",
    "pdm_lightning.pace",
    "pdm_lightning.replicas",
    "pdm_lightning.stages.begun",
    "pdm_lightning.stages.ddp",
    "pdm_lightning.stages.train",
    "pdm_lightning.stages.trainer",
    "pdm_lightning.stages.training",
    "pdm_lightning.stages.collapse",
    "pdm_lightning.stages.folder",
    "pdm_lightning.stages.start",
)
_SEE = (*_EMBED, "detection", "pdm_lightning.stages.features", "pdm_lightning.stages.sight")
_CRAFT = (
    *_SEE,
    "attacks",
    "pdm_lightning.target",
    "pdm_lightning.threat",
    "pdm_lightning.stages.clean",
    "pdm_lightning.stages.detector",
    "pdm_lightning.stages.engine",
    "pdm_lightning.stages.halves",
    "pdm_lightning.stages.hands",
    "pdm_lightning.stages.shards",
    "pdm_lightning.stages.craft",
)
_MEASURE = (*_SEE, "attacks", "pdm_lightning.stages.measured")
_BOUND = (*_MEASURE, "pdm_lightning.matching", "pdm_lightning.stages.bound")
_VALIDATE = (
    *_SEE,
    "pdm_lightning.stages.detector",
    "pdm_lightning.stages.halves",
    "pdm_lightning.stages.validation",
)
#: The modules and packages that a kind of artifact follows from; a test holds them against what the stages import.
SOURCES: dict[str, tuple[str, ...]] = {
    "train": _TRAIN,
    "proxy": (*_TRAIN, "pdm_lightning.stages.proxy"),
    "features": (*_EMBED, "detection.features", "pdm_lightning.stages.features"),
    "clean": (
        *("detection.clusters", "detection.intervals", "detection.resampling"),
        "pdm_lightning.stages.clean",
    ),
    "tsne": ("detection.clusters", "pdm_lightning.seeding", "pdm_lightning.stages.tsne"),
    "splits": ("pdm_lightning.data", "pdm_lightning.stages.splits"),
    "gradients": (*_EMBED, "attacks", "pdm_lightning.stages.features", "pdm_lightning.stages.gradients"),
    "bound": _BOUND,
    "layer_gradients": (*_MEASURE, "pdm_lightning.losses", "pdm_lightning.stages.layer_gradients"),
    "walk": (*_CRAFT, "pdm_lightning.stages.measured", "pdm_lightning.stages.walk"),
    "detector": (*_SEE, "pdm_lightning.stages.detector"),
    "examples": _CRAFT,
    "craft": _CRAFT,
    "validity": (
        *_CRAFT,
        "pdm_lightning.matching",
        "pdm_lightning.stages.rounding",
        "pdm_lightning.stages.validity",
    ),
    "noise": (*_SEE, "attacks", "pdm_lightning.stages.detector", "pdm_lightning.stages.noise"),
    "alarms": (*_SEE, "attacks", "pdm_lightning.stages.detector", "pdm_lightning.stages.noise"),
    "selftest": (*_CRAFT, "pdm_lightning.stages.selftest"),
    "score": (*_SEE, "pdm_lightning.stages.detector", "pdm_lightning.stages.score"),
    "compare": (
        "detection.differences",
        "detection.evaluate",
        "detection.intervals",
        "detection.joint",
        "detection.resampling",
        "pdm_lightning.matching",
        "pdm_lightning.stages.compare",
    ),
    "average": (
        "detection.averages",
        "detection.evaluate",
        "detection.intervals",
        "detection.resampling",
        "pdm_lightning.stages.average",
    ),
    "worst": (
        "detection.joint",
        "detection.intervals",
        "pdm_lightning.matching",
        "pdm_lightning.stages.score",
        "pdm_lightning.stages.worst",
    ),
    "rank": _BOUND,
    "bandwidths": (
        *_SEE,
        "pdm_lightning.stages.detector",
        "pdm_lightning.stages.measured",
        "pdm_lightning.stages.bandwidths",
    ),
    "val_clean": ("detection.clusters", "detection.intervals", "pdm_lightning.stages.validation"),
    "val_detector": _VALIDATE,
    "val_craft": _CRAFT,
    "val_score": _VALIDATE,
}
# Packages whose code is told by their own version, not by ours.
_LIBRARIES = {"torch", "torchvision", "timm", "transformers", "pdm_lightning", "attacks", "detection"}


def source(node: Node) -> str:
    """Hash of the code that a node's artifact follows from: an artifact with another hash is stale."""
    return source_of(node.kind, node.spec)


def source_of(kind: str, spec: Any) -> str:
    """`source` of what is to have, or has, these settings.

    To the modules of this project come those of every ``_target_`` of the user's own.
    """
    return source_hash([*SOURCES[kind], *own_modules(spec)])


def own_modules(spec: Any) -> frozenset[str]:
    """The modules of the user's own that settings name."""
    named = {target.rpartition(".")[0] for target in _targets(spec)}
    return frozenset(name for name in named if name.split(".")[0] not in _LIBRARIES)


def _targets(spec: Any) -> Iterator[str]:
    if isinstance(spec, dict):
        if "_target_" in spec:
            yield str(spec["_target_"])
        spec = list(spec.values())
    if isinstance(spec, list):
        for part in spec:
            yield from _targets(part)
