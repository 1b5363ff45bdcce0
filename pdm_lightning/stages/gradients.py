"""Stage ``gradients``: can an attack use the gradients of a classifier?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks.base import input_gradient
from attacks.objectives import ascent
from attacks.target import frozen
from attacks.task import all_zero
from pdm_lightning.data import to_unit
from pdm_lightning.devices import strict_float32
from pdm_lightning.models import Classifier
from pdm_lightning.stages import features
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

LOSSES = ("ce", "margin")


def build(node: Node, folder: Path, context: Context) -> None:
    """Look at the gradients of a few clean validation images.

    ``gradients.json``: ``images``; ``zero``, by loss the share of them whose gradient is zero in every pixel; ``nan``,
    images with a logit or a gradient that is not finite; ``nondeterministic``, the largest difference between the
    logits of two equal passes, in standard deviations of the logits.
    """
    parent = node.parents["features"]
    model, data = parent.parents["train"], context.data(parent)
    device = context.device(model)
    seen = features.read(context.artifact(parent))["validation"]
    right = (seen.predicted == seen.labels).nonzero().flatten()[: node.spec["images"]]
    if not len(right):
        raise ValueError(f"{node.title}: no validation image is classified correctly: train the model longer")
    x, y = to_unit(data.validation[0][right]).to(device), seen.labels[right].to(device)
    classifier = context.classifier(model, device)
    with strict_float32(), frozen(classifier):
        slopes = {loss: _gradient(classifier, x, y, loss) for loss in LOSSES}
        with torch.no_grad():
            first, again = classifier(x), classifier(x)
    broken = ~first.isfinite().all(dim=1)
    for slope in slopes.values():
        broken |= ~slope.flatten(1).isfinite().all(dim=1)
    spread, differ = float(first.std()), float((first - again).abs().max())
    facts: dict[str, Any] = {
        "images": len(x),
        "zero": {loss: float(all_zero(slope).double().mean()) for loss, slope in slopes.items()},
        "nan": int(broken.sum()),
        "nondeterministic": differ / spread if spread > 0 else differ,
    }
    write_json(folder / "gradients.json", facts)


def _gradient(classifier: Classifier, x: Tensor, y: Tensor, loss: str) -> Tensor:
    leaf = x.clone().requires_grad_()
    return input_gradient(ascent(loss, classifier(leaf), y), leaf)
