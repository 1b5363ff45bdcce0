"""Stage ``average``: the mean AUC of one detector over several attacks on one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from detection.averages import mean_auc
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Average over the attacks that fool ``min_n`` images or more, by the paired rule.

    ``average.json``: ``value``, ``low``, ``high`` (None without such an attack), ``n``, the smallest number of pairs,
    and ``attacks``, how many there are.
    """
    runs = []
    for parent in node.parents.values():
        scores = load_file(context.artifact(parent).file("scores.safetensors"))
        fooled = scores["fooled"]
        if int(fooled.sum()) >= max(node.spec["min_n"], 1):
            runs.append((scores["index"][fooled], scores["clean"][fooled], scores["adversarial"][fooled]))
    told: dict[str, Any] = {"value": None, "low": None, "high": None, "n": 0, "attacks": len(runs)}
    if runs:
        found = mean_auc(runs, resamples=node.spec["bootstrap"])
        told |= {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    write_json(folder / "average.json", told)
