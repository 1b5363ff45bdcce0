"""Stage ``compare``: two scores of one attack on the same test images, image by image."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor

from detection.differences import Difference, paired_difference, paired_proportions
from detection.joint import joint_hits, worst_case
from pdm_lightning.matching import places
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.store import Artifact

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

Scores = dict[str, Tensor]


def build(node: Node, folder: Path, context: Context) -> None:
    """Difference a minus b of the AUC and of the joint successes, on the images that both attacked.

    Only images that a model classifies correctly are attacked, so those of both are correct in both. The AUC is
    taken of the images that are fooled in both (the paired rule), the joint success of all of them.
    """
    found = [context.artifact(node.parents[side]) for side in ("a", "b")]
    a, b = common(found)
    alarms = [artifact.json("score.json")["thresholds"] for artifact in found]
    metrics: dict[str, Any] = {"auc": asdict(auc_difference(a, b, node.spec)), "images": len(a["index"])}
    for fpr in alarms[0]:
        joint = joint_difference(a, b, alarms[0][fpr], alarms[1].get(fpr), node.spec["min_n"])
        metrics[f"joint_success@{fpr}"] = asdict(joint)
    write_json(folder / "compare.json", metrics)


def common(found: list[Artifact]) -> list[Scores]:
    """The rows of both that belong to images in both, in the same order."""
    runs = [load_file(artifact.file("scores.safetensors")) for artifact in found]
    images, _ = worst_case([run["index"] for run in runs], [run["fooled"] for run in runs])
    return [
        {
            name: run[name][places(run["index"], images)]
            for name in ("index", "clean", "adversarial", "fooled")
        }
        for run in runs
    ]


def auc_difference(a: Scores, b: Scores, spec: dict[str, Any]) -> Difference:
    """Difference of the AUCs; without a value where too few images are fooled in both."""
    both = a["fooled"] & b["fooled"]
    n = int(both.sum())
    if n < max(spec["min_n"], 1):
        return nothing(n)
    clean_a, adv_a, clean_b, adv_b = (one[side][both] for one in (a, b) for side in ("clean", "adversarial"))
    return paired_difference(clean_a, adv_a, clean_b, adv_b, resamples=spec["bootstrap"])


def joint_difference(
    a: Scores, b: Scores, alarm_a: float | None, alarm_b: float | None, min_n: int
) -> Difference:
    """Difference of the joint successes, each at the threshold that was frozen for it."""
    if alarm_a is None or alarm_b is None or len(a["index"]) < min_n:
        return nothing(len(a["index"]))
    hits_a = joint_hits(a["fooled"], a["adversarial"], alarm_a)
    return paired_proportions(hits_a, joint_hits(b["fooled"], b["adversarial"], alarm_b))


def nothing(n: int) -> Difference:
    """No difference that could be told of n images."""
    return Difference(None, None, None, None, n)
