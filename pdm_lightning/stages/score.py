"""Stage ``score``: does the detector tell an attack's images from their originals?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from detection import Interval, View, all_auc, paired_auc, proportion
from pdm_lightning.stages import craft, detector
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Score every attacked image and its original; AUC under both rules, rates and distances."""
    crafted = context.artifact(node.parents["craft"])
    fitted = context.artifact(node.parents["detector"])
    rows, counts = craft.read(crafted), crafted.json("craft.json")
    clean = load_file(fitted.file("scores.safetensors"))["test"][rows["index"]]
    with torch.no_grad():
        adversarial = detector.read(fitted).score(View.from_features(rows["embeddings"], rows["logits"]))
    save_file(
        {"index": rows["index"], "clean": clean.contiguous(), "adversarial": adversarial.contiguous()},
        folder / "scores.safetensors",
    )
    settings = {"resamples": node.spec["bootstrap"], "min_n": node.spec["min_n"]}
    fooled = rows["predicted"] != rows["y"]
    # only correctly classified images are attacked, so every row is correct before the attack
    correct = torch.ones_like(fooled)
    metrics = {
        "auc": _interval(paired_auc(clean, adversarial, correct, fooled, **settings)),
        "auc_all": _interval(all_auc(clean, adversarial, correct, **settings)),
        "success_rate": _interval(proportion(int(rows["success"].sum()), len(fooled))),
        "misclassified_rate": _interval(proportion(int(fooled.sum()), len(fooled))),
        "robust_accuracy": _interval(proportion(int((~fooled).sum()), counts["candidates"])),
        "seconds": {"value": counts["seconds"]},
        "passes": {"value": float(rows["passes"].double().mean())},
    }
    metrics |= {f"{norm}_mean": _mean(rows[norm], rows["success"]) for norm in ("l2", "linf", "l0")}
    write_json(folder / "score.json", metrics)


def _interval(interval: Interval) -> dict[str, Any]:
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}


def _mean(distances: torch.Tensor, success: torch.Tensor) -> dict[str, Any]:
    """Mean distance over successes; null where there is none."""
    chosen = distances[success].double()
    return {"value": float(chosen.mean()) if len(chosen) else None, "n": len(chosen)}
