"""Stage ``clean``: how well a classifier does, and how it arranges its classes, on clean test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from detection import cluster_intervals, proportion
from pdm_lightning.stages import features
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Accuracy with its Wilson interval; Davies-Bouldin index, cluster variance and distance with bootstrap ones."""
    sets = features.read(context.artifact(node.parents["features"]))
    test = sets["test"]
    accuracy = proportion(int((test.predicted == test.labels).sum()), len(test.labels))
    clusters = cluster_intervals(test.embeddings, test.labels)
    write_json(
        folder / "clean.json",
        {
            "accuracy": {
                "value": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
                "n": accuracy.n,
            },
            **{name: found.value for name, found in clusters.items()},
            "intervals": {name: [found.low, found.high] for name, found in clusters.items()},
            "n": len(test.labels),
        },
    )


def median_margin(validation: features.Features) -> float:
    """Median difference of the two largest readout logits over correctly classified validation images."""
    correct = validation.logits[validation.predicted == validation.labels]
    if not len(correct):
        raise ValueError("no validation image is classified correctly: the model has no clean margin")
    top = torch.topk(correct, 2, dim=1).values
    return float((top[:, 0] - top[:, 1]).median())
