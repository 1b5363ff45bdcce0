"""What an adversary has in its hands: the attack, and what the threat model grants of the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks import Attack, Setup, prepare
from detection.features import LAYERS
from pdm_lightning.stages import detector, features, sight
from pdm_lightning.stages.clean import median_margin
from pdm_lightning.stages.context import Context
from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.target import judged_by
from pdm_lightning.threat import Target, ThreatModel, Watch

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


@dataclass(frozen=True)
class Hands:
    """An adversary at work.

    Attributes
    ----------
    attack : Attack
    target : Target
        What the threat model grants: a prepared copy of the classifier, judged by the classifier itself (its
        ``exact``), or that itself.
    foreign : bool
        Whether that classifier is a surrogate and not the one under attack.
    """

    attack: Attack
    target: Target
    foreign: bool


def held(node: Node) -> Node:
    """The node of the classifier that the adversary of a ``craft`` node works on."""
    return node.parents["surrogate" if "surrogate" in node.parents else "train"]


def take(
    node: Node,
    context: Context,
    device: torch.device,
    setup: Setup,
    slack: float = 0.0,
    example: Tensor | None = None,
) -> Hands:
    """Put into the adversary's hands what the threat model of a ``craft`` node grants, and no more.

    Parameters
    ----------
    node : Node
    context : Context
    device : torch.device
    setup : attacks.Setup
        How gradient passes are run; with nothing folded, on the classifier itself.
    slack : float
        By how much a margin on the prepared copy may be off.
    example : Tensor, optional
        (n, C, H, W) images on the device, for a CUDA graph.
    """
    sets, watch = _features(node, context), None
    classifier = context.classifier(held(node), device)
    looked_at = classifier.tapped
    if "detector" in node.parents:
        fitted = detector.read(context.artifact(node.parents["detector"]))
        seen = sight.clean(fitted, node.parents["detector"].parents["features"], context)
        watch = Watch(fitted, seen["train"], seen["validation"], **node.spec["aim"])
        looked_at += tuple(name for name in fitted.reads if name not in LAYERS)
    threat: ThreatModel = instantiate({"_target_": node.runtime["threat"]["_target_"]})
    exact = threat.target(classifier, watch)
    target = exact
    if setup.fold:
        ready = prepare(classifier, example if setup.cuda_graph else None, setup, keep=looked_at)
        target = threat.target(ready.module, watch)
    target = judged_by(target, exact, setup.micro_batch, slack)
    return Hands(make_attack(node.spec["attack"], sets), target, "surrogate" in node.parents)


def attack_of(node: Node, context: Context) -> Attack:
    """The attack of a ``craft`` node, with the numbers of the model that it works on."""
    return make_attack(node.spec["attack"], _features(node, context))


def _features(node: Node, context: Context) -> dict[str, features.Features]:
    """Features of the model that the adversary works on."""
    foreign = "surrogate" in node.parents
    return features.read(context.artifact(node.parents["surrogate_features" if foreign else "features"]))


def make_attack(spec: dict[str, Any], sets: dict[str, features.Features] | None = None) -> Attack:
    """The attack of a specification; ``confidence: median_margin`` becomes the model's own number.

    Without `sets`, the model's features, it becomes 0: enough to check the attack and to count its passes.
    """
    if spec.get("confidence") == "median_margin":
        spec = spec | {"confidence": median_margin(sets["validation"]) if sets else 0.0}
    attack: Attack = instantiate(spec)
    return attack
