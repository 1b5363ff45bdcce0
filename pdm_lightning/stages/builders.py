"""Which function builds which kind of node, and from which modules its result follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdm_lightning.stages import (
    average,
    clean,
    compare,
    craft,
    detector,
    features,
    gradients,
    noise,
    proxy,
    score,
    selftest,
    splits,
    training,
    tsne,
    validation,
    validity,
    worst,
)
from pdm_lightning.stages.context import Context
from pdm_lightning.store import source_hash

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

BUILDERS: dict[str, Callable[[Node, Path, Context], Mapping[str, Any] | None]] = {
    "train": training.build,
    "proxy": proxy.build,
    "features": features.build,
    "clean": clean.build,
    "tsne": tsne.build,
    "splits": splits.build,
    "gradients": gradients.build,
    "examples": craft.build,
    "detector": detector.build,
    "craft": craft.build,
    "validity": validity.build,
    "noise": noise.build,
    "alarms": noise.alarms,
    "selftest": selftest.build,
    "score": score.build,
    "compare": compare.build,
    "average": average.build,
    "worst": worst.build,
    "val_clean": validation.clean,
    "val_detector": validation.fit,
    "val_craft": craft.build,
    "val_score": validation.score,
}

_MODEL = ("pdm_lightning.models", "pdm_lightning.stages.build", "pdm_lightning.seeding")
_EMBED = (
    *_MODEL,
    "detection.features",
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
    "pdm_lightning.replicas",
    "pdm_lightning.stages.begun",
    "pdm_lightning.stages.ddp",
    "pdm_lightning.stages.train",
    "pdm_lightning.stages.trainer",
    "pdm_lightning.stages.training",
    "pdm_lightning.stages.collapse",
    "pdm_lightning.stages.folder",
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
    "clean": ("detection.clusters", "detection.intervals", "pdm_lightning.stages.clean"),
    "tsne": ("detection.clusters", "pdm_lightning.seeding", "pdm_lightning.stages.tsne"),
    "splits": ("pdm_lightning.data", "pdm_lightning.stages.splits"),
    "gradients": (*_EMBED, "attacks", "pdm_lightning.stages.features", "pdm_lightning.stages.gradients"),
    "detector": (*_SEE, "pdm_lightning.stages.detector"),
    "examples": _CRAFT,
    "craft": _CRAFT,
    "validity": (*_EMBED, "attacks", "pdm_lightning.matching", "pdm_lightning.stages.validity"),
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
    "val_clean": ("detection.clusters", "detection.intervals", "pdm_lightning.stages.validation"),
    "val_detector": _VALIDATE,
    "val_craft": _CRAFT,
    "val_score": _VALIDATE,
}
# Packages whose code is told by their own version, not by ours.
_LIBRARIES = {"torch", "torchvision", "pdm_lightning", "attacks", "detection"}


def source(node: Node) -> str:
    """Hash of the code that a node's artifact follows from: an artifact with another hash is stale.

    To the modules of this project come those of every ``_target_`` of the user's own.
    """
    own = {target.rpartition(".")[0] for target in _targets(node.spec)}
    return source_hash([*SOURCES[node.kind], *(name for name in own if name.split(".")[0] not in _LIBRARIES)])


def _targets(spec: Any) -> Iterator[str]:
    if isinstance(spec, dict):
        if "_target_" in spec:
            yield str(spec["_target_"])
        spec = list(spec.values())
    if isinstance(spec, list):
        for part in spec:
            yield from _targets(part)
