"""Stages ``noise`` and ``alarms``: images with random noise of an attack's own size, and what a detector says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from attacks.noise import noise_like
from pdm_lightning.data import to_unit
from pdm_lightning.seeding import derive
from pdm_lightning.stages import craft, detector, sight
from pdm_lightning.stages.context import Context, embed, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Give every attacked image random noise of the distance of its adversarial version.

    ``noise.safetensors`` holds what a detector needs (``x_adv``, ``embeddings``, ``logits``), ``predicted``, ``y`` and
    ``index``, rows as in the ``craft`` artifact.
    """
    crafting = node.parents["craft"]
    rows, model = craft.read(context.artifact(crafting)), crafting.parents["train"]
    device = context.device(model)
    x = to_unit(context.data(crafting).test[0][rows["index"]])
    norm = str(crafting.spec["attack"].get("norm", "linf" if "eps" in crafting.spec["attack"] else "l2"))
    noisy = noise_like(x, rows["x_adv"], norm, derive(node.spec["seed"], "noise"), rows["index"])
    seen = embed(context.classifier(model, device), noisy, device)
    tensors = {"x_adv": noisy, "embeddings": seen["embedding"], "logits": seen["logits"]}
    tensors |= {"predicted": seen["logits"].argmax(dim=1), "y": rows["y"], "index": rows["index"]}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "noise.safetensors")
    fooled = int((tensors["predicted"] != rows["y"]).sum())
    write_json(folder / "noise.json", {"fooled": fooled, "n": len(x), "norm": norm})


def alarms(node: Node, folder: Path, context: Context) -> None:
    """Score the noisy images, twice.

    ``scores.safetensors``: ``noise`` (N,) float64. ``alarms.json``: ``nondeterministic``, the largest difference
    between the two, in standard deviations of the scores.
    """
    rows = load_file(context.artifact(node.parents["noise"]).file("noise.safetensors"))
    watching = node.parents["detector"]
    judge = detector.read(context.artifact(watching))
    model = watching.parents["features"].parents["train"]
    first, again = (sight.scores(judge, sight.attacked(judge, rows, model, context)) for _ in range(2))
    spread = float(first.std()) if len(first) > 1 else 0.0
    differ = float((first - again).abs().max())
    save_file({"noise": first.contiguous()}, folder / "scores.safetensors")
    write_json(folder / "alarms.json", {"nondeterministic": differ / spread if spread else differ})
