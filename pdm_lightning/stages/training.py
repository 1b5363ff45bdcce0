"""Stage ``train``: a data set and a defence in, a trained classifier out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdm_lightning.pace import Pace
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.ddp import train_together
from pdm_lightning.stages.train import fit
from pdm_lightning.tracking import axis_tags, tracking

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Train into ``folder``, going on from an earlier, interrupted call's checkpoint."""
    train(node, node.spec, folder, context)


def train(
    node: Node, spec: dict[str, Any], folder: Path, context: Context, teacher: Node | None = None
) -> None:
    """Train by a spec, and write what `open_classifier` reads.

    Parameters
    ----------
    teacher : Node, optional
        Of the classifier that is distilled.
    """
    data = context.data(node)
    write_json(folder / "data.json", {"name": data.name, "classes": data.classes, "shape": list(data.shape)})
    spec = spec | {"train": spec["train"] | {"segment": node.runtime["segment"]}}
    spec["start"] = node.runtime.get("weights")
    axes = node.runtime.get("axes", {})
    logged: dict[str, Any] = {
        "cfg": node.runtime["logger"],
        "folder": Path(node.runtime["paths"]["output"]) / "logs",
        "run_id": node.key,
        "config": {**axes, "key": node.key, "settings": node.spec},
        "group": node.runtime["group"],
        "name": node.title,
        "tags": axis_tags(axes),
    }
    trainer = node.runtime["trainer"]
    devices = trainer.get("devices", 1)
    pace = Pace(trainer.get("channels_last"), bool(trainer.get("compile", False)))
    if devices > 1 and spec["defense"]["use"]:
        train_together(node, spec, folder, context, teacher, devices, logged, pace)
        return
    device = context.device(node)
    taught_by = None if teacher is None else context.classifier(teacher, device)
    with tracking(**logged) as loggers:
        fit(
            data,
            spec,
            folder,
            device=str(device),
            loggers=loggers,
            progress=context.progress,
            teacher=taught_by,
            watch=None if context.watch is None else partial(context.watch, node),
            pace=pace,
        )
