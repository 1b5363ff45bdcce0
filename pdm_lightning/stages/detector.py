"""Stage ``detector``: a fitted detector, with the scores of clean validation and test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from detection import Detector, Features, mapped
from pdm_lightning.stages import sight
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.store import Artifact

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Fit on clean training features; bandwidths and thresholds come from clean validation features.

    A detector that is fitted on an attack gets that attack's images of training images besides.
    """
    detector: Detector = instantiate(node.spec)
    sets = sight.clean(detector, node.parents["features"], context)
    detector.fit(sets["train"], sets["validation"], adversarial(detector, node, context))
    save(detector, {split: sight.scores(detector, sets[split]) for split in ("validation", "test")}, folder)


def save(detector: Detector, scores: dict[str, Tensor], folder: Path) -> None:
    """Write a fitted detector and its scores of clean images, (N,) by split."""
    mapped.save(detector.state_dict(), folder / "state.safetensors")
    save_file(scores, folder / "scores.safetensors")
    write_json(folder / "detector.json", {"bandwidth": _bandwidth(detector)})


def adversarial(detector: Detector, node: Node, context: Context) -> Features | None:
    """What the attack made of training images that a detector is fitted on; None for one that needs none."""
    if "examples" not in node.parents:
        return None
    rows = load_file(context.artifact(node.parents["examples"]).file("adversarial.safetensors"))
    return sight.attacked(detector, rows, node.parents["features"].parents["train"], context)


def _bandwidth(detector: Detector) -> float | None:
    value: Any = getattr(detector, "bandwidth_", None)
    return None if value is None else float(value)


def read(artifact: Artifact) -> Detector:
    """Rebuild the fitted detector of a ``detector`` artifact."""
    detector: Detector = instantiate(artifact.manifest["spec"])
    detector.load_state_dict(mapped.load(artifact.file("state.safetensors")))
    return detector
