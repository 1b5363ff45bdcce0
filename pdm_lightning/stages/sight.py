"""What a detector is shown: stored features, and images with the classifier where it asks for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detection import Detector, Features
from detection.features import LAYERS
from pdm_lightning.data import to_unit
from pdm_lightning.models import Classifier
from pdm_lightning.stages import features
from pdm_lightning.stages.context import Context, embed

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

BATCH = 256
"""Images that a detector which asks the classifier scores at a time."""


def clean(detector: Detector, node: Node, context: Context) -> dict[str, Features]:
    """Features of each split as a detector sees them.

    Parameters
    ----------
    detector : Detector
    node : Node
        Of kind ``features``.
    context : Context
    """
    sets = features.read(context.artifact(node))
    if not detector.needs_images:
        return sets
    data, device = context.data(node), context.device(node)
    model = context.classifier(node.parents["train"], device)
    chosen = features.kept(data, node)
    images = {"train": data.train[0][chosen], "validation": data.validation[0], "test": data.test[0]}
    return {split: _with(found, to_unit(images[split]), model, device) for split, found in sets.items()}


def attacked(detector: Detector, rows: dict[str, Tensor], model: Node, context: Context) -> Features:
    """Features of crafted images as a detector sees them.

    Parameters
    ----------
    detector : Detector
    rows : dict of str to Tensor
        ``x_adv``, ``embeddings``, ``logits`` and ``y``.
    model : Node
        The ``train`` node.
    context : Context
    """
    found = Features(rows["embeddings"], rows["logits"], rows["y"])
    further = [name for name in detector.reads if name not in LAYERS]
    if not further and not detector.needs_images:
        return found
    device = context.device(model)
    classifier = context.classifier(model, device)
    if further:
        seen = embed(classifier, rows["x_adv"], device, layers=further)
        found = replace(found, layers={name: seen[name] for name in further})
    return _with(found, rows["x_adv"], classifier, device) if detector.needs_images else found


def _with(found: Features, images: Tensor, model: Classifier, device: torch.device) -> Features:
    """The features with images and classifier, all where the classifier is."""
    return Features(
        found.embeddings.to(device),
        found.logits.to(device),
        found.labels.to(device),
        {name: layer.to(device) for name, layer in found.layers.items()},
        images.to(device),
        model,
    )


def scores(detector: Detector, found: Features) -> Tensor:
    """Score all rows: (N,) float64 on the CPU."""
    # one that asks the classifier keeps what passes through all of its layers, image by image
    parts = found.views(BATCH) if detector.needs_images else [found.view()]
    with torch.no_grad():
        return torch.cat([detector.score(part).cpu() for part in parts])
