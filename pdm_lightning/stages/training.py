"""Stage ``train``: a data set and a defence in, a trained classifier out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdm_lightning.models import Classifier
from pdm_lightning.stages.context import Context, write_json
from pdm_lightning.stages.train import fit
from pdm_lightning.tracking import axis_tags, tracking

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


def build(node: Node, folder: Path, context: Context) -> None:
    """Train into ``folder``, going on from an earlier, interrupted call's checkpoint."""
    train(node, node.spec, folder, context)


def train(
    node: Node, spec: dict[str, Any], folder: Path, context: Context, teacher: Classifier | None = None
) -> None:
    """Train by a spec, with a teacher where there is one, and write what `open_classifier` reads."""
    data = context.data(node)
    write_json(folder / "data.json", {"name": data.name, "classes": data.classes, "shape": list(data.shape)})
    spec = spec | {"train": spec["train"] | {"segment": node.runtime["segment"]}}
    output = Path(node.runtime["paths"]["output"])
    device = str(context.device(node))
    axes = node.runtime.get("axes", {})
    config = {**axes, "key": node.key, "settings": node.spec}
    with tracking(
        node.runtime["logger"],
        output / "logs",
        node.key,
        config,
        node.runtime["group"],
        name=node.title,
        tags=axis_tags(axes),
    ) as loggers:
        fit(
            data,
            spec,
            folder,
            device=device,
            loggers=loggers,
            progress=context.progress,
            teacher=teacher,
            watch=None if context.watch is None else partial(context.watch, node),
        )
