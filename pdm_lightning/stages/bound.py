"""Stages ``bound`` and ``rank``: the paper's lower bound on the distortion (eq. 4), and what attacks needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from attacks.target import frozen
from detection import distortion_bound, jacobian_norm, mean_interval, proportion, rank_correlation
from pdm_lightning.devices import strict_float32
from pdm_lightning.matching import places
from pdm_lightning.progress import Progress
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.measured import batches, correctly_classified, looked_at, told

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Eta of the correctly classified test images, and ||J|| of the first ``spec.images`` of them.

    ``bound.json``: ``eta``, ``eta_q01``, ``jacobian_norm`` and ``bound``, means with intervals. ``bound.safetensors``:
    ``index``, ``jacobian`` and ``bound`` (eta / ||J||), one row an image.
    """
    parent = node.parents["features"]
    index, x, _, seen = correctly_classified(parent, node.spec["images"], context)
    classifier = context.classifier(parent.parents["train"], x.device)
    parts = []
    with (
        strict_float32(),
        frozen(classifier),
        Progress(len(x), f"bound {node.title}", enabled=context.progress) as bar,
    ):
        for rows in batches(len(x)):
            parts.append(jacobian_norm(lambda part: classifier.embed_and_raw(part)[0], x[rows]).cpu())
            bar.update(len(rows))
    right = seen.predicted == seen.labels
    found = distortion_bound(seen.embeddings[right], seen.labels[right], torch.cat(parts))
    if not torch.isfinite(found.per_example).all():
        raise ValueError(
            f"{node.title}: the embedding does not depend on an image at all: eta / ||J|| is infinite"
        )
    save_file(
        {"index": index, "jacobian": found.jacobian, "bound": found.per_example}, folder / "bound.safetensors"
    )
    pairs = {"n": int(right.sum())}
    settings = {"resamples": node.spec["bootstrap"]}
    facts = {
        "eta": {"value": found.eta, **pairs},
        "eta_q01": {"value": found.eta_low, **pairs},
        "jacobian_norm": told(mean_interval(found.jacobian, **settings)),
        "bound": told(mean_interval(found.per_example, **settings)),
        "images": looked_at(parent, node.spec["images"], context),
    }
    write_json(folder / "bound.json", facts)


def rank(node: Node, folder: Path, context: Context) -> None:
    """Set eta / ||J|| of each image beside the L2 distance that a minimum-norm attack needed.

    Over the images that both have and the attack won. ``rank.json``: ``bound_rank``, Spearman's correlation, and
    ``below_bound``, the share of images that needed less than the bound, which a true lower bound would never see.
    ``rank.safetensors``: ``index``, ``bound``, ``l2``.
    """
    bound = load_file(context.artifact(node.parents["bound"]).file("bound.safetensors"))
    crafted = load_file(context.artifact(node.parents["craft"]).file("adversarial.safetensors"))
    won = crafted["success"] & torch.isin(crafted["index"], bound["index"])
    index, l2 = crafted["index"][won], crafted["l2"][won].double()
    beside = bound["bound"][places(bound["index"], index)]
    save_file({"index": index, "bound": beside.contiguous(), "l2": l2}, folder / "rank.safetensors")
    facts = {
        "bound_rank": told(rank_correlation(beside, l2, resamples=node.spec["bootstrap"])),
        "below_bound": told(proportion(int((l2 < beside).sum()), len(l2))),
    }
    write_json(folder / "rank.json", facts)
