"""Stage ``score``: does the detector tell an attack's images from their originals?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detection import (
    Interval,
    all_auc,
    detected,
    distortion,
    frozen_threshold,
    joint_success,
    mean_interval,
    paired_auc,
    proportion,
    robust_accuracy,
)
from detection.rates import (
    bootstrap_average_precision,
    bootstrap_fpr_at_tpr,
    detection_accuracy,
    joint_accuracy,
    paired_rate,
)
from pdm_lightning.stages import craft, detector, features, sight
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Score every attacked image and its original; AUC under both rules, joint success, rates and distances."""
    crafted = context.artifact(node.parents["craft"])
    fitted = context.artifact(node.parents["detector"])
    rows, counts = craft.read(crafted), crafted.json("craft.json")
    known = load_file(fitted.file("scores.safetensors"))
    judge, model = detector.read(fitted), node.parents["detector"].parents["features"].parents["train"]
    adversarial = sight.scores(judge, sight.attacked(judge, rows, model, context))
    scores = {
        "index": rows["index"],
        "clean": known["test"][rows["index"]].contiguous(),
        "adversarial": adversarial.contiguous(),
        "fooled": rows["predicted"] != rows["y"],
        "l2": rows["l2"],
        "linf": rows["linf"],
    }
    save_file(scores, folder / "scores.safetensors")
    thresholds = {f"{fpr:g}": frozen_threshold(known["validation"], fpr) for fpr in node.spec["fpr"]}
    settings = {"resamples": node.spec["bootstrap"], "min_n": node.spec["min_n"]}
    metrics = _detection(scores, settings) | _rates(rows, counts, scores["fooled"])
    for fpr, threshold in thresholds.items():
        metrics |= _joint(scores, threshold, counts["candidates"], fpr, node.spec["min_n"])
        metrics |= _false_alarms(known["test"], threshold, fpr)
    won = rows["success"]
    if "surrogate_features" in node.parents:
        surrogate = features.read(context.artifact(node.parents["surrogate_features"]))["test"]
        # what the surrogate gets wrong without any attack is no success of the attack
        right = surrogate.predicted[rows["index"]] == rows["y"]
        won = won & right
        metrics |= _transfer(won, right, scores, settings)
    metrics |= _distances(rows, won, node.spec["bootstrap"])
    facts = {"thresholds": thresholds, "candidates": counts["candidates"]}
    write_json(folder / "score.json", metrics | facts)


def _detection(scores: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """AUC under both rules; only correctly classified images are attacked, so every row is correct before."""
    clean, adversarial, fooled = scores["clean"], scores["adversarial"], scores["fooled"]
    correct = torch.ones_like(fooled)
    return {
        "auc": interval(paired_auc(clean, adversarial, correct, fooled, **settings)),
        "auc_all": interval(all_auc(clean, adversarial, correct, **settings)),
        "aupr": interval(paired_rate(bootstrap_average_precision, clean, adversarial, fooled, **settings)),
        "fpr95": interval(paired_rate(bootstrap_fpr_at_tpr, clean, adversarial, fooled, **settings)),
    }


def _rates(rows: dict[str, Tensor], counts: dict[str, Any], fooled: Tensor) -> dict[str, Any]:
    return {
        "success_rate": interval(proportion(int(rows["success"].sum()), len(fooled))),
        "misclassified_rate": interval(proportion(int(fooled.sum()), len(fooled))),
        "robust_accuracy": interval(proportion(int((~fooled).sum()), counts["candidates"])),
        "seconds": {"value": counts["seconds"]},
        "passes": {"value": float(rows["passes"].double().mean())},
    }


def _joint(
    scores: dict[str, Tensor], threshold: float | None, candidates: int, fpr: str, min_n: int
) -> dict[str, Any]:
    """Classifier and detector together, at a threshold frozen on clean validation images."""
    clean, fooled, adversarial = scores["clean"], scores["fooled"], scores["adversarial"]
    robust = robust_accuracy(clean, fooled, adversarial, threshold, candidates)
    # the detector alone is judged on the pairs that its AUC is taken of
    told_apart = detection_accuracy(clean[fooled], adversarial[fooled], threshold)
    right = joint_accuracy(clean, fooled, adversarial, threshold, candidates)
    return {
        f"joint_success@{fpr}": enough(joint_success(fooled, adversarial, threshold), min_n),
        f"detected@{fpr}": enough(detected(fooled, adversarial, threshold), min_n),
        f"robust_accuracy@{fpr}": enough(robust, min_n),
        f"detection_accuracy@{fpr}": enough(told_apart, min_n),
        f"joint_accuracy@{fpr}": enough(right, min_n),
    }


def _false_alarms(clean: Tensor, threshold: float | None, fpr: str) -> dict[str, Any]:
    """Realised false-positive rate: share of all clean test images that are flagged."""
    if threshold is None:
        return {f"false_alarms@{fpr}": {"value": None, "n": len(clean)}}
    return {f"false_alarms@{fpr}": interval(proportion(int((clean > threshold).sum()), len(clean)))}


def _distances(rows: dict[str, Tensor], success: Tensor, resamples: int) -> dict[str, Any]:
    """Distances of the attack's own successes: those that failed are counted in its success rate, not here."""
    metrics = {
        f"{norm}_mean": interval(mean_interval(rows[norm][success].double(), resamples=resamples))
        for norm in ("l2", "linf", "l0")
    }
    found = distortion(rows["l2"][success], rows["x_adv"][0].numel(), resamples=resamples)
    n = found.mean.n
    metrics |= {"distortion": interval(found.mean), "distortion_median": {"value": found.median, "n": n}}
    metrics |= {
        "distortion_q25": {"value": found.q25, "n": n},
        "distortion_q75": {"value": found.q75, "n": n},
    }
    median = float(rows["l2"][success].double().quantile(0.5)) if n else None
    return metrics | {"l2_median": {"value": median, "n": n}}


def _transfer(
    won: Tensor, right: Tensor, scores: dict[str, Tensor], settings: dict[str, Any]
) -> dict[str, Any]:
    """How images fare on the target that fool the surrogate by the attack's own criterion, and did not before.

    ``auc_proxy`` keeps those that the target classifies correctly all the same, ``auc_transferred`` does not.
    """
    fooled = scores["fooled"]
    return {
        "auc_proxy": interval(
            paired_auc(scores["clean"], scores["adversarial"], torch.ones_like(won), won, **settings)
        ),
        "transfer_rate": interval(proportion(int((won & fooled).sum()), int(won.sum()))),
        "auc_transferred": interval(
            paired_auc(scores["clean"], scores["adversarial"], won, fooled, **settings)
        ),
        "proxy_success_rate": interval(proportion(int(won.sum()), int(right.sum()))),
    }


def enough(found: Interval, min_n: int) -> dict[str, Any]:
    """An interval as JSON has it, without a value where it rests on fewer than `min_n` images."""
    return interval(found if found.n >= min_n else Interval(None, None, None, found.n))


def interval(interval: Interval) -> dict[str, Any]:
    """An interval as JSON has it."""
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}
