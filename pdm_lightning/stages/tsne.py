"""Stage ``tsne``: test embeddings in two dimensions, for the paper's Figures 1a and 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.manifold import TSNE

from detection import davies_bouldin
from pdm_lightning.seeding import derive
from pdm_lightning.stages import features
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Reduce a seeded choice of test embeddings with scikit-learn's t-SNE."""
    test = features.read(context.artifact(node.parents["features"]))["test"]
    order = np.random.default_rng(derive(0, "tsne")).permutation(len(test.labels))[: node.spec["points"]]
    labels = test.labels.numpy()[order]
    perplexity = min(float(node.spec["perplexity"]), (len(order) - 1) / 3)
    reducer = TSNE(perplexity=perplexity, init="pca", random_state=derive(0, "tsne") % 2**31)
    points = reducer.fit_transform(test.embeddings.numpy()[order]).astype(np.float32)
    save_file({"points": np.ascontiguousarray(points), "labels": labels}, folder / "tsne.safetensors")
    flat = davies_bouldin(torch.from_numpy(points), torch.from_numpy(labels))
    write_json(folder / "tsne.json", {"dbi": davies_bouldin(test.embeddings, test.labels), "dbi_2d": flat})
