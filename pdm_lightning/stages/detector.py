"""Stage ``detector``: fitted on clean features, with the scores of clean validation and test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from detection import Detector, View
from pdm_lightning.stages import features
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.store import Artifact

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Fit on clean training features; bandwidths and thresholds come from clean validation features."""
    sets = features.read(context.artifact(node.parents["features"]))
    detector: Detector = instantiate(node.spec)
    detector.fit(sets["train"], sets["validation"])
    scores = {}
    for split in ("validation", "test"):
        view = View.from_features(sets[split].embeddings, sets[split].logits)
        with torch.no_grad():
            scores[split] = detector.score(view)
    save_file(
        {name: tensor.contiguous() for name, tensor in detector.state_dict().items()},
        folder / "state.safetensors",
    )
    save_file(scores, folder / "scores.safetensors")
    write_json(folder / "detector.json", {"bandwidth": _bandwidth(detector)})


def _bandwidth(detector: Detector) -> float | None:
    value: Any = getattr(detector, "bandwidth_", None)
    return None if value is None else float(value)


def read(artifact: Artifact) -> Detector:
    """Rebuild the fitted detector of a ``detector`` artifact."""
    detector: Detector = instantiate(artifact.manifest["spec"])
    detector.load_state_dict(load_file(artifact.file("state.safetensors")))
    return detector
