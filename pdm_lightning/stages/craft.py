"""Stage ``craft``: a trained classifier and an attack in, adversarial images and their features out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attacks import Attack, AttackResult
from pdm_lightning.data import to_unit
from pdm_lightning.devices import strict_float32
from pdm_lightning.manifest import sync
from pdm_lightning.models import fold
from pdm_lightning.progress import Progress
from pdm_lightning.seeding import derive
from pdm_lightning.stages import detector, features
from pdm_lightning.stages.clean import median_margin
from pdm_lightning.stages.context import Context, embed, write_json
from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.store import Artifact
from pdm_lightning.threat import Target, ThreatModel, Watch

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Attack the correctly classified images among the first ``spec.images`` of the test set's fixed order.

    Finished batches are files in ``folder``: an interrupted crafting goes on where it stopped.
    """
    data, device = context.data(node), context.device(node)
    sets = features.read(context.artifact(node.parents["features"]))
    classifier = context.classifier(node.parents["train"], device)
    hands = take(node, context, device, sets)
    candidates = torch.as_tensor(data.test_order(node.spec["images"] or len(data.test[1])))
    labels = data.test[1][candidates]
    chosen = candidates[sets["test"].predicted[candidates] == labels]
    if not len(chosen):
        raise ValueError(f"{node.title}: the classifier gets none of the {len(candidates)} test images right")
    size = node.runtime["batch_size"] or (512 if device.type == "cuda" else 64)
    started = time.monotonic()
    with Progress(len(chosen), f"craft {node.title}", enabled=context.progress) as progress, strict_float32():
        for part in _missing(folder, chosen, size, progress):

            def report(done: int, total: int, active: int = len(part)) -> None:
                progress.update(0, batch=f"{done / max(total, 1):.0%}", active=active)

            images, y = to_unit(data.test[0][part]).to(device), data.test[1][part].to(device)
            seed = derive(node.spec["seed"], "craft")
            result = hands.attack(hands.target, images, y, index=part.to(device), seed=seed, progress=report)
            success, seen = hands.attack.judge(hands.exact, result.x_adv, y, result.target)
            z, logits = embed(classifier, result.x_adv, device)
            tensors = {"embeddings": z, "logits": logits}
            if hands.foreign:
                tensors["proxy_predicted"] = seen
            result = replace(result, success=success, predicted=logits.argmax(dim=1))
            _save(folder, part, result, tensors, time.monotonic() - started)
            started = time.monotonic()
            progress.update(len(part))
    finish(folder, chosen, len(candidates), len(data.test[1]), hands.attack)


@dataclass(frozen=True)
class Hands:
    """An adversary at work: the attack, the target it attacks and the one that judges what comes out.

    Attributes
    ----------
    attack : Attack
    target, exact : Target
        What the threat model grants, on a folded copy of the classifier for speed, and on the classifier itself.
    foreign : bool
        Whether that classifier is a surrogate and not the one under attack.
    """

    attack: Attack
    target: Target
    exact: Target
    foreign: bool


def take(node: Node, context: Context, device: torch.device, sets: dict[str, features.Features]) -> Hands:
    """Put into the adversary's hands what the threat model of a ``craft`` node grants, and no more.

    `sets` are the features of the classifier under attack; those of a surrogate take their place.
    """
    foreign = "surrogate" in node.parents
    model = node.parents["surrogate" if foreign else "train"]
    if foreign:
        sets = features.read(context.artifact(node.parents["surrogate_features"]))
    watch = None
    if "detector" in node.parents:
        fitted = detector.read(context.artifact(node.parents["detector"]))
        watch = Watch(fitted, sets["train"], sets["validation"], **node.spec["aim"])
    threat: ThreatModel = instantiate({"_target_": node.runtime["threat"]["_target_"]})
    held = context.classifier(model, device)
    exact = threat.target(held, watch)
    target = threat.target(fold(held), watch) if node.runtime["fold"] else exact
    return Hands(make_attack(node.spec["attack"], sets), target, exact, foreign)


def make_attack(spec: dict[str, Any], sets: dict[str, features.Features] | None = None) -> Attack:
    """The attack of a specification; ``confidence: median_margin`` becomes the model's own number.

    Without `sets`, the model's features, it becomes 0: enough to check the attack and to count its passes.
    """
    if spec.get("confidence") == "median_margin":
        spec = spec | {"confidence": median_margin(sets["validation"]) if sets else 0.0}
    attack: Attack = instantiate(spec)
    return attack


def _parts(folder: Path) -> list[Path]:
    return sorted((folder / "batches").glob("*.safetensors"))


def _missing(folder: Path, chosen: Tensor, size: int, progress: Progress) -> list[Tensor]:
    """Batches of the images that no finished batch of an earlier call holds."""
    (folder / "batches").mkdir(exist_ok=True)
    done = [load_file(path)["index"] for path in _parts(folder)]
    if done:
        finished = torch.cat(done)
        progress.update(len(finished))
        chosen = chosen[~torch.isin(chosen, finished)]
    return list(chosen.split(size)) if len(chosen) else []


def _save(
    folder: Path, index: Tensor, result: AttackResult, others: dict[str, Tensor], seconds: float
) -> None:
    tensors = {
        name: getattr(result, name)
        for name in ("x_adv", "success", "y", "predicted", "l2", "linf", "l0", "passes", "zero_gradients")
    }
    if result.target is not None:
        tensors["target"] = result.target
    tensors |= others | {"index": index, "seconds": torch.tensor([seconds])}
    path = folder / "batches" / f"{int(index[0]):08d}.safetensors"
    scratch = path.with_suffix(".part")
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, scratch)
    sync(scratch)
    scratch.replace(path)


def finish(folder: Path, chosen: Tensor, candidates: int, total: int, attack: Attack) -> None:
    """Merge the batches, in the order of the test set's fixed permutation, and count."""
    parts = [load_file(path) for path in _parts(folder)]
    merged = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    seconds = float(merged.pop("seconds").sum())
    place = {int(index): row for row, index in enumerate(merged["index"])}
    order = torch.tensor([place[int(index)] for index in chosen])
    merged = {name: tensor[order].contiguous() for name, tensor in merged.items()}
    save_file(merged, folder / "adversarial.safetensors")
    write_json(
        folder / "craft.json",
        {
            "attack": repr(attack),
            "seconds": seconds,
            "candidates": candidates,
            "test_images": total,
            "attacked": len(chosen),
        },
    )
    for path in _parts(folder):
        path.unlink()
    (folder / "batches").rmdir()


def read(artifact: Artifact) -> dict[str, Tensor]:
    """Tensors of a ``craft`` artifact, one row an attacked image.

    Keys: ``index`` (into the test set), ``x_adv``, ``success``, ``y``, ``predicted``, ``l2``, ``linf``, ``l0``,
    ``passes``, ``embeddings``, ``logits``, ``target`` for a targeted attack, and, where a surrogate was attacked,
    ``proxy_predicted``, its prediction; ``success`` is the attack's own, on the model that it attacked, all the
    others are the target's.
    """
    tensors: dict[str, Tensor] = load_file(artifact.file("adversarial.safetensors"))
    return tensors
