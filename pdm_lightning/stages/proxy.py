"""Stage ``proxy``: a trained classifier in, a distilled copy of it out.

A node's spec is that of a training whose defence distils; its parent ``train`` is the classifier to distil::

    {"use": ["distill"], "readout": "direct", "pairs": "auto", "term": {"distill": {
        "_target_": "pdm_lightning.losses.Distillation", "labels": "soft", "temperature": 1.0, "weight": 1.0}}}
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pdm_lightning.stages.build import load_classifier
from pdm_lightning.stages.context import Context, embed, write_json
from pdm_lightning.stages.training import train

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Distil the parent into ``folder``, which then holds what a training does and ``proxy.json``.

    An interrupted call's training goes on from its checkpoint. ``proxy.json``: ``agreement`` (share of validation
    images that proxy and target give one class), ``accuracy`` and ``target_accuracy`` on them, and their number
    ``images``.
    """
    parent, device = node.parents["train"], context.device(node)
    # the target's key tells whose answers the checkpoint in the folder has learned
    train(node, node.spec | {"target": parent.key}, folder, context, teacher=parent)
    target = context.classifier(parent, device)
    data = context.data(node)
    images, labels = data.validation
    proxy = load_classifier(node.spec, folder, data.num_classes, data.shape[0]).to(device)
    theirs, ours = (embed(one, images, device)["logits"].argmax(dim=1) for one in (target, proxy))
    found = {
        "agreement": _share(ours, theirs),
        "accuracy": _share(ours, labels),
        "target_accuracy": _share(theirs, labels),
    }
    write_json(folder / "proxy.json", found | {"images": len(labels)})


def _share(one: Tensor, other: Tensor) -> float:
    """Share of the images (N,) that two classifications agree on."""
    return (one == other).double().mean().item()
