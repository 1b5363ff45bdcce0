"""Stage ``features``: what a trained classifier says of clean images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from detection import Features, mapped
from pdm_lightning.data import ImageData
from pdm_lightning.progress import Progress
from pdm_lightning.seeding import derive
from pdm_lightning.stages.context import Context, embed
from pdm_lightning.store import Artifact

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

SPLITS = ("train", "validation", "test")


def build(node: Node, folder: Path, context: Context) -> None:
    """Embed a part of the training images, all validation and all test images.

    ``spec.layers``, where it is given, names further layers that are kept beside embedding and logits.
    """
    data, device = context.data(node), context.device(node)
    classifier = context.classifier(node.parents["train"], device)
    chosen, layers = kept(data, node), node.spec.get("layers", [])
    sets = {"train": data.train, "validation": data.validation, "test": data.test}
    total = len(chosen) + len(data.validation[1]) + len(data.test[1])
    tensors: dict[str, Tensor] = {}
    with Progress(total, f"features {node.title}", enabled=context.progress) as progress:
        for split, (images, labels) in sets.items():
            rows = chosen if split == "train" else None
            seen = embed(classifier, images, device, progress.update, layers, rows)
            tensors |= {
                f"{split}.embeddings": seen.pop("embedding"),
                f"{split}.logits": seen.pop("logits"),
                f"{split}.labels": labels if rows is None else labels[rows],
            }
            tensors |= {f"{split}.layer.{name}": layer for name, layer in seen.items()}
    if not all(bool(torch.isfinite(part).all()) for held in tensors.values() for part in mapped.blocks(held)):
        raise ValueError(
            f"the classifier of {node.title} gives embeddings that are not finite: train it again"
        )
    mapped.save(tensors, folder / "features.safetensors")


def kept(data: ImageData, node: Node) -> Tensor:
    """Numbers of the training images that a ``features`` node keeps, ascending."""
    return per_class(data.train[1], node.spec["train_per_class"], derive(0, "features"))


def per_class(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices of up to ``count`` random samples of each class, seeded, ascending."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in labels.unique().tolist():
        members = torch.nonzero(labels == label).flatten().numpy()
        chosen.append(generator.permutation(members)[:count])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def read(artifact: Artifact) -> dict[str, Features]:
    """Features of each split from a ``features`` artifact; large ones are read where they are looked at."""
    tensors = mapped.load(artifact.file("features.safetensors"))
    sets = {}
    for split in SPLITS:
        layers = {
            name.removeprefix(f"{split}.layer."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{split}.layer.")
        }
        embeddings, logits, labels = (
            tensors[f"{split}.{part}"] for part in ("embeddings", "logits", "labels")
        )
        sets[split] = Features(embeddings, logits, labels, layers)
    return sets
