"""Stage ``validity``: are an attack's images what they claim to be?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks.base import input_gradient
from attacks.objectives import margin
from attacks.target import frozen
from pdm_lightning.data import to_unit
from pdm_lightning.devices import strict_float32
from pdm_lightning.matching import inside
from pdm_lightning.models import Classifier
from pdm_lightning.stages import craft
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

BATCH = 128
LEVELS = 255
"""Steps of a pixel of eight bits."""


def build(node: Node, folder: Path, context: Context) -> None:
    """Look at the crafted images anew, with a fresh pass of the classifier, and count what does not hold.

    ``validity.json``: ``n``; ``outside_box`` and ``outside_ball``, images beyond [0, 1] or the attack's radius;
    ``largest_linf`` and ``largest_l2``; ``recorded_distance_error``, between the distances recorded and those
    measured; ``claims_wrong``, images whose recorded success is not what the pass says; ``unchanged``, failures
    that equal the clean image, out of ``failures``; ``rounded`` and ``rounded_directed``, misclassified images that
    still are after rounding to eight bits, to the nearest level or along the gradient (the fate of an image in a file).
    """
    crafting = node.parents["craft"]
    rows, model = craft.read(context.artifact(crafting)), crafting.parents["train"]
    device = context.device(model)
    classifier = context.classifier(model, device)
    x = to_unit(context.data(crafting).test[0][rows["index"]])
    change = (rows["x_adv"] - x).flatten(1).double()
    linf, l2 = change.abs().amax(dim=1), torch.linalg.vector_norm(change, dim=1)
    with strict_float32(), frozen(classifier):
        found = [
            _look(classifier, images.to(device), labels.to(device))
            for images, labels in zip(rows["x_adv"].split(BATCH), rows["y"].split(BATCH), strict=True)
        ]
    fooled, nearest, directed = (torch.cat(parts) for parts in zip(*found, strict=True))
    outside = (rows["x_adv"] < 0) | (rows["x_adv"] > 1) | ~rows["x_adv"].isfinite()
    facts: dict[str, Any] = {
        "n": len(x),
        "outside_box": int(outside.flatten(1).any(dim=1).sum()),
        "outside_ball": int(_outside(crafting.spec["attack"], linf, l2).sum()),
        "largest_linf": float(linf.max()),
        "largest_l2": float(l2.max()),
        "recorded_distance_error": float(
            torch.maximum((linf - rows["linf"]).abs(), (l2 - rows["l2"]).abs()).max()
        ),
        "claims_wrong": int((fooled != (rows["predicted"] != rows["y"])).sum()),
        "failures": int((~fooled).sum()),
        "unchanged": int(((linf == 0) & ~fooled).sum()),
        "rounded": {"fooled": int((nearest & fooled).sum()), "n": int(fooled.sum())},
        "rounded_directed": {"fooled": int((directed & fooled).sum()), "n": int(fooled.sum())},
    }
    write_json(folder / "validity.json", facts)


def _outside(attack: dict[str, Any], linf: Tensor, l2: Tensor) -> Tensor:
    """(N,) bool: beyond the radius that the attack declares; none where it declares none."""
    if attack.get("eps") is None:
        return torch.zeros_like(linf, dtype=torch.bool)
    return ~inside(l2 if attack.get("norm", "linf") == "l2" else linf, float(attack["eps"]))


def _look(classifier: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n,) bool each: misclassified as it is, at the nearest levels, and at levels chosen along the gradient."""
    leaf = x.clone().requires_grad_()
    logits = classifier(leaf)
    slope = input_gradient(margin(logits, y), leaf)
    nearest = (x * LEVELS).round() / LEVELS
    directed = torch.where(slope > 0, (x * LEVELS).ceil(), (x * LEVELS).floor()) / LEVELS
    with torch.no_grad():
        seen = [logits, classifier(nearest.clamp(0, 1)), classifier(directed.clamp(0, 1))]
    fooled, at_nearest, at_directed = ((one.argmax(dim=1) != y).cpu() for one in seen)
    return fooled, at_nearest, at_directed
