"""Stage ``layer_gradients``: how large the gradients of the losses are, at the input and at each stage's output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks.objectives import ascent
from attacks.target import frozen
from detection import mean_interval
from pdm_lightning.data import to_unit
from pdm_lightning.data.pairs import pair_indices
from pdm_lightning.devices import strict_float32
from pdm_lightning.losses import CombinedLoss, Outputs, look
from pdm_lightning.models import Classifier
from pdm_lightning.seeding import generator, seeded
from pdm_lightning.stages.build import build_loss
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.measured import looked_at, norms, outputs_of, stages_of, told
from pdm_lightning.store import Artifact

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

LOSSES = ("attack", "train")


def build(node: Node, folder: Path, context: Context) -> None:
    """L2 norms of the gradients of two losses on the first ``spec.images`` test images.

    ``attack``: softmax cross-entropy of the readout logits, as FGSM and BIM climb it. ``train``: what the defence was
    trained with, on pairs where it takes pairs; of a batch's mean, times its anchors, so that it is a gradient an
    image as the other one is. The classifier is in eval mode. ``layer_gradients.json``: by loss and layer (``input``,
    each stage, ``embedding``) the mean over the images with its interval; see `read`.
    """
    parent = node.parents["features"]
    model, data = parent.parents["train"], context.data(parent)
    defense, device = model.spec["defense"], context.device(model)
    loss, classifier = build_loss(defense), context.classifier(model, device)
    order = data.test_order(node.spec["images"])
    labels = data.test[1]
    partner = same = None
    if defense["pairs"] == "always":
        drawn, same = pair_indices(
            labels[order], defense["q"], generator(node.spec["seed"], "layer gradients")
        )
        partner = order[drawn]
    found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in LOSSES}
    with strict_float32(), frozen(classifier):
        for rows in torch.arange(len(order)).split(model.spec["train"]["batch_size"]):
            chosen = order[rows] if partner is None else torch.cat([order[rows], partner[rows]])
            x, y = to_unit(data.test[0][chosen]).to(device), labels[chosen].to(device)
            alike = None if same is None else same[rows].to(device)
            with seeded(node.spec["seed"], "layer gradients", int(rows[0])):  # a term may draw
                measured = _measure(classifier, loss, x, y, alike)
            for name, layers in measured.items():
                for layer, sizes in layers.items():
                    found[name].setdefault(layer, []).append(sizes)
    settings: Mapping[str, Any] = {"resamples": node.spec["bootstrap"]}
    means = {
        name: {layer: told(mean_interval(torch.cat(parts), **settings)) for layer, parts in layers.items()}
        for name, layers in found.items()
    }
    looked = looked_at(parent, node.spec["images"], context)
    # JSON has its keys sorted: the order of the layers is told
    write_json(folder / "layer_gradients.json", means | {"layers": list(means["attack"]), "images": looked})


def read(artifact: Artifact) -> dict[str, dict[str, dict[str, Any]]]:
    """By loss and layer, from the image on, the mean with its interval."""
    told = artifact.json("layer_gradients.json")
    return {
        name: {layer: told[name][layer] for layer in told["layers"] if layer in told[name]} for name in LOSSES
    }


def _measure(
    classifier: Classifier, loss: CombinedLoss, x: Tensor, y: Tensor, same: Tensor | None
) -> dict[str, dict[str, Tensor]]:
    """By loss and layer, the norm of each anchor's gradient."""
    anchors = len(x) if same is None else len(same)
    leaf = x.requires_grad_()
    with torch.enable_grad(), outputs_of(classifier, stages_of(classifier)) as caught:
        seen = look(classifier, leaf, loss.taps, loss.places)
        readout = classifier.read(seen.logits)
        out = Outputs(
            seen.embeddings, seen.logits, y, same, readout=readout, layers=seen.layers, places=seen.places
        )
        total, _ = loss(out)
        attacked = ascent("ce", readout, y)[:anchors].sum()
    places = {"input": leaf, **caught, "embedding": seen.embeddings}
    sizes: dict[str, dict[str, Tensor]] = {}
    for name, value in zip(LOSSES, (attacked, total * anchors), strict=True):
        slopes = torch.autograd.grad(value, list(places.values()), retain_graph=True, allow_unused=True)
        sizes[name] = {
            layer: norms(slope[:anchors])
            for layer, slope in zip(places, slopes, strict=True)
            if slope is not None
        }
    return sizes
