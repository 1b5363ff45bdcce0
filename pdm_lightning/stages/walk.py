"""Stage ``walk``: what an iterated attack meets on its way, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from attacks import Attack
from attacks.objectives import ascent
from attacks.target import frozen
from detection import mean_interval, proportion, ratio_interval
from pdm_lightning.devices import strict_float32
from pdm_lightning.models import Classifier
from pdm_lightning.progress import Progress
from pdm_lightning.seeding import derive
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.hands import make_attack
from pdm_lightning.stages.measured import batches, correctly_classified, looked_at, norms, told

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Follow an attack that takes one gradient of the whole batch a step (BIM, PGD) on the classifier itself.

    At the start and after each step: the L2 norms of the gradients of the attack's loss at the embedding and at the
    input, and whether the image is misclassified. ``walk.safetensors`` holds them, (steps + 1, N) each, and ``index``;
    ``walk.json`` their means (shares) with intervals, and ``gradient_growth``, the mean norm at the embedding after
    the last step over that at the start.
    """
    parent = node.parents["features"]
    index, x, y, _ = correctly_classified(parent, node.spec["images"], context)
    classifier = context.classifier(parent.parents["train"], x.device)
    attack, seed = make_attack(node.spec["attack"]), derive(node.spec["seed"], "craft")
    parts = []
    with (
        strict_float32(),
        frozen(classifier),
        Progress(len(x), f"walk {node.title}", enabled=context.progress) as bar,
    ):
        for rows in batches(len(x)):
            steps = _steps(attack, classifier, x[rows], y[rows], index[rows].to(x.device), seed)
            loss = getattr(attack, "loss", "ce")
            parts.append([_at(classifier, step, y[rows], loss) for step in steps])
            bar.update(len(rows))
    found = {
        name: torch.stack([torch.cat([part[step][name] for part in parts]) for step in range(len(parts[0]))])
        for name in ("embedding", "input", "fooled")
    }
    save_file(found | {"index": index}, folder / "walk.safetensors")
    looked = {"images": looked_at(parent, node.spec["images"], context)}
    write_json(folder / "walk.json", _means(found, {"resamples": node.spec["bootstrap"]}) | looked)


def _steps(
    attack: Attack, classifier: Classifier, x: Tensor, y: Tensor, index: Tensor, seed: int
) -> list[Tensor]:
    """Where the attack asked for a gradient, one step after the other, and where it ended."""
    seen: list[Tensor] = []

    def watched(images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(images.detach().clone())
        return classifier(images)

    end = attack(watched, x, y, index=index, seed=seed).x_adv
    if not seen or any(step.shape != x.shape for step in seen):
        raise ValueError(
            f"{type(attack).__name__} does not take one gradient of all images a step: follow BIM or PGD"
        )
    return [*seen, end]


def _at(classifier: Classifier, x: Tensor, y: Tensor, loss: str) -> dict[str, Tensor]:
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        z, logits = classifier.embed_and_logits(leaf)
        slopes = torch.autograd.grad(ascent(loss, logits, y).sum(), [z, leaf])
    at_embedding, at_input = (norms(slope) for slope in slopes)
    return {"embedding": at_embedding, "input": at_input, "fooled": (logits.argmax(dim=1) != y).cpu()}


def _means(found: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    means: dict[str, Any] = {
        name: [told(mean_interval(step, **settings)) for step in found[name]]
        for name in ("embedding", "input")
    }
    means["fooled"] = [told(proportion(int(step.sum()), len(step))) for step in found["fooled"]]
    first, last = found["embedding"][0], found["embedding"][-1]
    means["gradient_growth"] = told(ratio_interval(last, first, **settings))
    return means
