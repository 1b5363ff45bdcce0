"""Stage ``craft``: a trained classifier and an attack in, adversarial images and their features out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attacks import Attack, AttackResult
from pdm_lightning.data import to_unit
from pdm_lightning.data.base import balanced_order
from pdm_lightning.devices import strict_float32
from pdm_lightning.durable import is_whole, replacing, write_text
from pdm_lightning.progress import Progress
from pdm_lightning.seeding import derive
from pdm_lightning.stages import engine, features, hands, shards
from pdm_lightning.stages.context import Context, embed
from pdm_lightning.stages.halves import halves
from pdm_lightning.store import Artifact

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

Show = Callable[..., object]


def build(node: Node, folder: Path, context: Context) -> dict[str, Any]:
    """Attack the correctly classified images among the first ``spec.images`` of the set's fixed order.

    Finished batches are files in ``folder``: an interrupted crafting goes on where it stopped, with the engine that
    it was begun with. With ``runtime.devices`` above 1, as many processes share the batches.

    Returns
    -------
    dict
        The engine, for the manifest.
    """
    told = _finished(folder)
    if told is None:
        _craft(node, folder, context)
        told = _finished(folder)
    assert told is not None
    shutil.rmtree(folder / "batches", ignore_errors=True)
    for path in folder.glob("engine.json*"):
        path.unlink()
    return {"engine": told["engine"]}


def _craft(node: Node, folder: Path, context: Context) -> None:
    device = context.device(node)
    chosen, counts = choose(node, context)
    if not len(chosen):
        raise ValueError(f"{node.title}: the classifier gets none of {counts['candidates']} images right")
    size = node.runtime["batch_size"] or (512 if device.type == "cuda" else 64)
    with Progress(len(chosen), f"craft {node.title}", enabled=context.progress) as progress:
        parts = _missing(folder, chosen, size, progress)
        chosen_engine = _engine(node, folder, context, device, chosen[:size])
        if node.runtime["devices"] > 1 and len(parts) > 1:
            shards.run(node, folder, context, parts, chosen_engine, progress)
        elif parts:
            craft_parts(node, folder, context, device, parts, chosen_engine, progress.update)
    finish(folder, chosen, counts, hands.attack_of(node, context), chosen_engine)


def choose(node: Node, context: Context) -> tuple[Tensor, dict[str, int]]:
    """Which images are attacked: those classified correctly among the first ``spec.images`` of a fixed order.

    Those of an ``examples`` node are training images whose features are kept, those of a ``val_craft`` node the second
    half of the validation images, all others test images.

    Returns
    -------
    chosen : (N,) int64 Tensor
        Their numbers in the set.
    counts : dict of str to int
        ``candidates`` that were looked at, and ``test_images``, the size of the set.
    """
    data, parent = context.data(node), node.parents["features"]
    sets = features.read(context.artifact(parent))
    if node.kind == "examples":
        numbers, seen = features.kept(data, parent), sets["train"]
        order = balanced_order(seen.labels, derive(0, "craft train"))[: node.spec["images"]]
        right = seen.predicted[order] == seen.labels[order]
        return numbers[order][right], {"candidates": len(order), "test_images": len(seen)}
    if node.kind == "val_craft":
        seen = sets["validation"]
        order = halves(seen.labels)[1][: node.spec["images"]]
        right = seen.predicted[order] == seen.labels[order]
        return order[right], {"candidates": len(order), "test_images": len(seen)}
    order = data.test_order(node.spec["images"] or len(data.test[1]))
    right = sets["test"].predicted[order] == data.test[1][order]
    return order[right], {"candidates": len(order), "test_images": len(data.test[1])}


def craft_parts(
    node: Node,
    folder: Path,
    context: Context,
    device: torch.device,
    parts: Sequence[Tensor],
    chosen: engine.Engine,
    show: Show,
) -> None:
    """Attack batches of the set, one after the other, and save each as it is finished.

    Parameters
    ----------
    parts : sequence of Tensor
        Numbers of its images, (n,) int64 each.
    chosen : Engine
        How gradient passes are run.
    show : callable
        Takes the number of images that were finished and, by name, what else there is to show.
    """
    labels, classifier = _set(node, context)[1], context.classifier(node.parents["train"], device)
    seed, started = derive(node.spec["seed"], "craft"), time.monotonic()
    with strict_float32():
        example = _images(node, context, parts[0], device)
        adversary = hands.take(node, context, device, chosen.setup, chosen.slack, example)
        for part in parts:

            def report(done: int, total: int, active: int = len(part)) -> None:
                show(0, batch=f"{done / max(total, 1):.0%}", active=active)

            images, y = _images(node, context, part, device), labels[part].to(device)
            result = adversary.attack(
                adversary.target, images, y, index=part.to(device), seed=seed, progress=report
            )
            seen = embed(classifier, result.x_adv, device)
            tensors = {"embeddings": seen["embedding"], "logits": seen["logits"]}
            tensors["predicted"] = seen["logits"].argmax(dim=1)
            if adversary.foreign:
                tensors["proxy_predicted"] = result.predicted
            _save(folder, part, result, tensors, time.monotonic() - started)
            started = time.monotonic()
            show(len(part))


def _engine(node: Node, folder: Path, context: Context, device: torch.device, part: Tensor) -> engine.Engine:
    """The engine that the crafting was begun with, or the one to begin with."""
    begun = engine.resume(folder)
    if begun is not None and begun.suits(node.runtime, device):
        return begun
    model, example = hands.held(node), _images(node, context, part, device)
    classifier = context.classifier(model, device)
    with shards.as_one_of(device, node.runtime["devices"]), strict_float32():
        chosen = engine.choose(
            Path(node.runtime["paths"]["output"]),
            classifier,
            model.spec["model"],
            example,
            node.runtime,
            graphs="detector" not in node.parents,
        )
        chosen = engine.check(chosen, classifier, example)
    engine.begin(folder, chosen)
    return chosen


def _images(node: Node, context: Context, part: Tensor, device: torch.device) -> Tensor:
    return to_unit(_set(node, context)[0][part]).to(device)


def _set(node: Node, context: Context) -> tuple[Tensor, Tensor]:
    """Images and labels that the attacked ones are numbered in."""
    data = context.data(node)
    return {"examples": data.train, "val_craft": data.validation}.get(node.kind, data.test)


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
        for name in ("x_adv", "success", "y", "l2", "linf", "l0", "passes", "zero_gradients")
    }
    if result.target is not None:
        tensors["target"] = result.target
    tensors |= others | {"index": index, "seconds": torch.tensor([seconds])}
    with replacing(folder / "batches" / f"{int(index[0]):08d}.safetensors") as new:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, new)


def finish(folder: Path, chosen: Tensor, counts: dict[str, int], attack: Attack, used: engine.Engine) -> None:
    """Merge the batches, in the order of the set's fixed permutation, and count; last comes craft.json."""
    parts = [load_file(path) for path in _parts(folder)]
    merged = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    seconds = float(merged.pop("seconds").sum())
    place = {int(index): row for row, index in enumerate(merged["index"])}
    order = torch.tensor([place[int(index)] for index in chosen])
    merged = {name: tensor[order].contiguous() for name, tensor in merged.items()}
    with replacing(folder / "adversarial.safetensors") as new:
        save_file(merged, new)
    told = {"attack": repr(attack), "seconds": seconds, "attacked": len(chosen), **counts}
    told["engine"] = used.as_dict()
    write_text(folder / "craft.json", json.dumps(told, indent=1, sort_keys=True) + "\n")


def _finished(folder: Path) -> dict[str, Any] | None:
    """What craft.json holds; None where the crafting is not finished, or its files cannot be read."""
    try:
        told: dict[str, Any] = json.loads((folder / "craft.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return told if "engine" in told and is_whole(folder / "adversarial.safetensors") else None


def read(artifact: Artifact) -> dict[str, Tensor]:
    """Tensors of a ``craft`` artifact, one row an attacked image.

    Keys: ``index`` (into the set, see `choose`), ``x_adv``, ``success``, ``y``, ``predicted``, ``l2``, ``linf``,
    ``l0``, ``passes``, ``embeddings``, ``logits``, ``target`` for a targeted attack, and, where a surrogate was
    attacked, ``proxy_predicted``, its prediction; ``success`` is the attack's own, on the model that it attacked, all
    the others are the target's.
    """
    tensors: dict[str, Tensor] = load_file(artifact.file("adversarial.safetensors"))
    return tensors
