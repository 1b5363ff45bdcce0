"""Stage ``validity``: are an attack's images what they claim to be?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks import Setup
from attacks.base import input_gradient
from attacks.objectives import margin
from attacks.target import frozen
from pdm_lightning.data import to_unit
from pdm_lightning.devices import strict_float32
from pdm_lightning.models import Classifier
from pdm_lightning.stages import craft, hands
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.rounding import LEVELS, directed, held, outside, rounded

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

BATCH = 128


def build(node: Node, folder: Path, context: Context) -> None:
    """Look at the crafted images anew, with a fresh pass of the classifier, and count what does not hold.

    ``validity.json``: ``n``; ``outside_box`` and ``outside_ball``, images beyond [0, 1] or the attack's radius;
    ``largest_linf`` and ``largest_l2``; ``recorded_distance_error``, between the distances recorded and those
    measured; ``claims_wrong``, images whose recorded success is not what the pass says; ``unchanged``, failures
    that equal the clean image, out of ``failures``; ``rounded`` and ``rounded_directed``, misclassified images that
    still are after rounding to eight bits inside the ball, to the nearest level or along the gradient (the fate of an
    image in a file); of an attack on classifier and detector ``rounded_joint``, its successes that are still successes
    after one of several roundings, see `pdm_lightning.stages.rounding`.
    """
    crafting = node.parents["craft"]
    rows, model = craft.read(context.artifact(crafting)), crafting.parents["train"]
    device = context.device(model)
    classifier = context.classifier(model, device)
    x = to_unit(context.data(crafting).test[0][rows["index"]])
    change = (rows["x_adv"] - x).flatten(1).double()
    linf, l2 = change.abs().amax(dim=1), torch.linalg.vector_norm(change, dim=1)
    attack = crafting.spec["attack"]
    with strict_float32(), frozen(classifier):
        parts = [one.split(BATCH) for one in (rows["x_adv"], x, rows["y"])]
        found = [
            _look(classifier, x_adv.to(device), clean.to(device), y.to(device), attack)
            for x_adv, clean, y in zip(*parts, strict=True)
        ]
    fooled, nearest, along = (torch.cat(parts) for parts in zip(*found, strict=True))
    beyond = (rows["x_adv"] < 0) | (rows["x_adv"] > 1) | ~rows["x_adv"].isfinite()
    facts: dict[str, Any] = {
        "n": len(x),
        "outside_box": int(beyond.flatten(1).any(dim=1).sum()),
        "outside_ball": int(outside(attack, rows["x_adv"], x).sum()),
        "largest_linf": float(linf.max()),
        "largest_l2": float(l2.max()),
        "recorded_distance_error": float(
            torch.maximum((linf - rows["linf"]).abs(), (l2 - rows["l2"]).abs()).max()
        ),
        "claims_wrong": int((fooled != (rows["predicted"] != rows["y"])).sum()),
        "failures": int((~fooled).sum()),
        "unchanged": int(((linf == 0) & ~fooled).sum()),
        "rounded": {"fooled": int((nearest & fooled).sum()), "n": int(fooled.sum())},
        "rounded_directed": {"fooled": int((along & fooled).sum()), "n": int(fooled.sum())},
    }
    if "detector" in crafting.parents:
        facts["rounded_joint"] = _joint(crafting, context, rows, x)
    write_json(folder / "validity.json", facts)


def _look(
    classifier: Classifier, x_adv: Tensor, x: Tensor, y: Tensor, attack: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """(n,) bool each: misclassified as it is, at the nearest levels, and at levels chosen along the gradient."""
    leaf = x_adv.clone().requires_grad_()
    logits = classifier(leaf)
    slope = input_gradient(margin(logits, y), leaf)
    fooled, found = (logits.argmax(dim=1) != y).cpu(), []
    for wish in ((x_adv * LEVELS).round(), directed(x_adv, slope)):
        images = rounded(wish, x_adv, x, attack)
        with torch.no_grad():
            missed = (classifier(images).argmax(dim=1) != y).cpu()
        found.append(missed & ~outside(attack, images, x))
    return fooled, found[0], found[1]


def _joint(crafting: Node, context: Context, rows: dict[str, Tensor], x: Tensor) -> dict[str, int]:
    """Successes on classifier and detector, on the model that the attack worked on, and those that a file can hold."""
    device = context.device(hands.held(crafting))
    with strict_float32():
        adversary = hands.take(crafting, context, device, Setup(fold=False))
        won = torch.nonzero(rows["success"]).flatten()
        goals = rows.get("target")
        kept = 0
        with frozen(adversary.target):
            for part in won.split(BATCH):
                x_adv, clean, y = (one[part].to(device) for one in (rows["x_adv"], x, rows["y"]))
                goal = None if goals is None else goals[part].to(device)
                kept += int(held(adversary, x_adv, clean, y, goal, crafting.spec["attack"]).sum())
    return {"held": kept, "n": len(won)}
