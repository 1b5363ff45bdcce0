"""Stages ``val_clean``, ``val_detector`` and ``val_score``: what a model is worth on validation images alone.

They are the twins of ``clean``, ``detector`` and ``score`` that hyper-parameters are chosen by; the test set stays out
of them. Validation images are shared: those by which a setting was chosen also freeze the thresholds, and set the
bandwidths, of the study that is run with it afterwards.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detection import Detector, Features, all_auc, davies_bouldin, paired_auc, proportion
from pdm_lightning.stages import craft, detector, features, sight
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.halves import halves
from pdm_lightning.stages.instantiate import instantiate

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def clean(node: Node, folder: Path, context: Context) -> None:
    """Accuracy with its Wilson interval and Davies-Bouldin index of the clean validation images."""
    seen = features.read(context.artifact(node.parents["features"]))["validation"]
    accuracy = proportion(int((seen.predicted == seen.labels).sum()), len(seen))
    dbi = davies_bouldin(seen.embeddings, seen.labels)
    write_json(folder / "clean.json", {"accuracy": asdict(accuracy), "dbi": {"value": dbi, "n": len(seen)}})


def fit(node: Node, folder: Path, context: Context) -> None:
    """Fit a detector as stage ``detector`` does, its bandwidth on the first half of the validation images only.

    The folder holds the same files; ``scores`` are those of all validation images, of which the first half is not to
    be judged by.
    """
    fitted: Detector = instantiate(node.spec)
    sets = sight.clean(fitted, node.parents["features"], context)
    fitting, _ = halves(sets["validation"].labels)
    adversarial = detector.adversarial(fitted, node, context)
    fitted.fit(sets["train"], _rows(sets["validation"], fitting), adversarial)
    detector.save(fitted, {"validation": sight.scores(fitted, sets["validation"])}, folder)


def score(node: Node, folder: Path, context: Context) -> None:
    """AUC of the attack on the second half of the validation images, under both rules."""
    crafted, fitted = (context.artifact(node.parents[role]) for role in ("craft", "detector"))
    rows, counts = craft.read(crafted), crafted.json("craft.json")
    judge, model = detector.read(fitted), node.parents["detector"].parents["features"].parents["train"]
    adversarial = sight.scores(judge, sight.attacked(judge, rows, model, context)).contiguous()
    clean = load_file(fitted.file("scores.safetensors"))["validation"][rows["index"]].contiguous()
    fooled = rows["predicted"] != rows["y"]
    right = torch.ones_like(fooled)  # only images that are classified correctly are attacked
    settings = {"min_n": node.spec["min_n"], "resamples": node.spec["bootstrap"]}
    scores = {"index": rows["index"], "clean": clean, "adversarial": adversarial, "fooled": fooled}
    save_file(scores, folder / "scores.safetensors")
    metrics = {
        "auc": asdict(paired_auc(clean, adversarial, right, fooled, **settings)),
        "auc_all": asdict(all_auc(clean, adversarial, right, **settings)),
        "misclassified_rate": asdict(proportion(int(fooled.sum()), len(fooled))),
        "candidates": counts["candidates"],
    }
    write_json(folder / "score.json", metrics)


def _rows(found: Features, rows: Tensor) -> Features:
    """Some rows of features."""
    images = None if found.images is None else found.images[rows]
    layers = {name: layer[rows] for name, layer in found.layers.items()}
    return Features(
        found.embeddings[rows], found.logits[rows], found.labels[rows], layers, images, found.model
    )
