"""Stage ``worst``: many attacks on one model, each image in the hands of the one that harms it most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detection import joint_hits, joint_success, robust_accuracy, worst_case
from pdm_lightning.matching import inside, places
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.score import enough

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Unite the joint successes of all parents' attacks inside the ball, on the images that all of them attacked."""
    artifacts = [context.artifact(parent) for parent in node.parents.values()]
    runs = [load_file(artifact.file("scores.safetensors")) for artifact in artifacts]
    told = [artifact.json("score.json") for artifact in artifacts]
    # the images tried are the first so many of one fixed order: those tried by all are the fewest
    candidates = min(one["candidates"] for one in told)
    indices = [run["index"] for run in runs]
    common, _ = worst_case(indices, [run["fooled"] for run in runs])
    clean = runs[0]["clean"][places(indices[0], common)]
    tensors, metrics = {"index": common}, dict[str, Any]()
    for fpr, threshold in told[0]["thresholds"].items():
        alarm = torch.inf if threshold is None else threshold
        _, hits = worst_case(
            indices, [_hits(run, alarm, node.spec["norm"], node.spec["eps"]) for run in runs]
        )
        if threshold is not None:
            tensors[f"hits@{fpr}"] = hits
        silent = torch.full_like(clean, -torch.inf)  # what counts as a hit was not flagged
        success = joint_success(hits, silent, threshold)
        robust = robust_accuracy(clean, hits, silent, threshold, candidates)
        metrics[f"joint_success@{fpr}"] = enough(success, node.spec["min_n"])
        metrics[f"robust_accuracy@{fpr}"] = enough(robust, node.spec["min_n"])
    save_file(tensors, folder / "worst.safetensors")
    write_json(folder / "worst.json", metrics | {"attacks": len(runs), "images": len(common)})


def _hits(run: dict[str, Tensor], threshold: float, norm: str, eps: float) -> Tensor:
    """(N,) bool: misclassified, not flagged, and inside the ball."""
    return joint_hits(run["fooled"], run["adversarial"], threshold) & inside(run[norm], eps)
