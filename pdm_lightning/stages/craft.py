"""Stage ``craft``: a trained classifier and an attack in, adversarial images and their features out."""

from __future__ import annotations

import time
from dataclasses import replace
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
from pdm_lightning.stages import features
from pdm_lightning.stages.clean import median_margin
from pdm_lightning.stages.context import Context, embed, write_json
from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.store import Artifact
from pdm_lightning.threat import ThreatModel

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Attack the correctly classified images among the first ``spec.images`` of the test set's fixed order.

    Finished batches are files in ``folder``: an interrupted crafting goes on where it stopped.
    """
    data, device = context.data(node), context.device(node)
    sets = features.read(context.artifact(node.parents["features"]))
    classifier = context.classifier(node.parents["train"], device)
    attack = make_attack(node.spec["attack"], sets)
    candidates = torch.as_tensor(data.test_order(node.spec["images"] or len(data.test[1])))
    labels = data.test[1][candidates]
    chosen = candidates[sets["test"].predicted[candidates] == labels]
    if not len(chosen):
        raise ValueError(f"{node.title}: the classifier gets none of the {len(candidates)} test images right")
    threat: ThreatModel = instantiate({"_target_": node.runtime["threat"]["_target_"]})
    # the attack works on a folded copy; what it made is judged by the classifier itself
    target = threat.target(fold(classifier) if node.runtime["fold"] else classifier)
    size = node.runtime["batch_size"] or (512 if device.type == "cuda" else 64)
    started = time.monotonic()
    with Progress(len(chosen), f"craft {node.title}", enabled=context.progress) as progress, strict_float32():
        for part in _missing(folder, chosen, size, progress):
            images = to_unit(data.test[0][part]).to(device)
            result = attack(
                target,
                images,
                data.test[1][part].to(device),
                index=part.to(device),
                seed=derive(node.spec["seed"], "craft"),
                progress=lambda done, total: progress.update(0, batch=f"{done / max(total, 1):.0%}"),
            )
            z, logits = embed(classifier, result.x_adv, device)
            _save(folder, part, judge(attack, result, logits), z, logits, time.monotonic() - started)
            started = time.monotonic()
            progress.update(len(part))
    finish(folder, chosen, len(candidates), len(data.test[1]), attack)


def make_attack(spec: dict[str, Any], sets: dict[str, features.Features]) -> Attack:
    """The attack of a specification; ``confidence: median_margin`` becomes the model's own number."""
    if spec.get("confidence") == "median_margin":
        spec = spec | {"confidence": median_margin(sets["validation"])}
    attack: Attack = instantiate(spec)
    return attack


def judge(attack: Attack, result: AttackResult, logits: Tensor) -> AttackResult:
    """The result with success and prediction as the classifier's own (N, K) readout logits have them."""
    y = result.y.cpu()
    target = None if result.target is None else result.target.cpu()
    return replace(result, success=attack.reached(logits, y, target), predicted=logits.argmax(dim=1))


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
    folder: Path, index: Tensor, result: AttackResult, z: Tensor, logits: Tensor, seconds: float
) -> None:
    tensors = {
        name: getattr(result, name)
        for name in ("x_adv", "success", "y", "predicted", "l2", "linf", "l0", "passes", "zero_gradients")
    }
    if result.target is not None:
        tensors["target"] = result.target
    tensors |= {"index": index, "embeddings": z, "logits": logits, "seconds": torch.tensor([seconds])}
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
    ``passes``, ``embeddings``, ``logits``, and ``target`` for a targeted attack.
    """
    tensors: dict[str, Tensor] = load_file(artifact.file("adversarial.safetensors"))
    return tensors
