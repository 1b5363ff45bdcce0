"""Stage ``bandwidths``: the AUC of a kernel density detector against its bandwidth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from detection import View, all_auc, paired_auc
from pdm_lightning.stages import craft, detector, features
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.measured import told

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Score an attack's images and their originals with the detector's kernels at other bandwidths.

    ``bandwidths.json``: ``bandwidth``, what the detector's rule chose, and ``points``: for each of ``spec.factors`` the
    bandwidth and the AUC by both rules.
    """
    watching = node.parents["detector"]
    fitted, rows = context.artifact(watching), craft.read(context.artifact(node.parents["craft"]))
    judge = detector.read(fitted)
    state = judge.state_dict()
    chosen = float(state["bandwidth"])
    seen, index = features.read(context.artifact(watching.parents["features"]))["test"], rows["index"]
    views = [
        View.from_features(seen.embeddings[index], seen.logits[index]),
        View.from_features(rows["embeddings"], rows["logits"]),
    ]
    fooled = rows["predicted"] != rows["y"]
    correct = torch.ones_like(fooled)  # only images that are classified correctly are attacked
    settings = {"min_n": node.spec["min_n"], "resamples": node.spec["bootstrap"]}
    points = []
    for factor in node.spec["factors"]:
        judge.load_state_dict(state | {"bandwidth": torch.tensor([chosen * factor], dtype=torch.float64)})
        clean, adversarial = (judge.score(view) for view in views)
        points.append(
            {
                "factor": factor,
                "bandwidth": chosen * factor,
                "auc": told(paired_auc(clean, adversarial, correct, fooled, **settings)),
                "auc_all": told(all_auc(clean, adversarial, correct, **settings)),
            }
        )
    write_json(folder / "bandwidths.json", {"bandwidth": chosen, "points": points})
