"""What crafting will cost: gradient passes at most, and seconds from one pass that is measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pdm_lightning.data import ImageData
from pdm_lightning.stages import engine
from pdm_lightning.stages.build import build_classifier
from pdm_lightning.stages.context import Context
from pdm_lightning.stages.hands import held, make_attack
from pdm_lightning.stages.shards import as_one_of
from pdm_lightning.study.plan import Node


@dataclass(frozen=True)
class Cost:
    """What crafting a node takes at most; None where that cannot be told.

    Attributes
    ----------
    passes : int or None
        Gradient passes of the attacked classifier (queries, for an attack without gradients), all images together.
    seconds : float or None
        Their time on this device, at the speed of a gradient pass of the classifier; a detector's share is not in it.
    """

    passes: int | None = None
    seconds: float | None = None


def costs(nodes: Iterable[Node], context: Context) -> dict[str, Cost]:
    """By key, what each ``craft`` node takes; nodes of other kinds are passed over.

    passes = images x `attacks.Attack.max_passes`; one batch is measured for each (model, shape, batch size), in the
    ways that crafting chooses among, on an untrained classifier. Nothing is downloaded and nothing is written: without
    the data a cost is unknown.

    Parameters
    ----------
    nodes : iterable of Node
        Such as a `Plan`.
    context : Context
        For data sets and devices.
    """
    meter = _Meter(context)
    return {node.key: meter.cost(node) for node in nodes if node.kind == "craft"}


def total(known: Iterable[Cost]) -> str:
    """All costs in one line; empty where there is none."""
    known = list(known)
    if not known:
        return ""
    counted = [cost.passes for cost in known if cost.passes is not None]
    timed = [cost.seconds for cost in known if cost.seconds is not None]
    parts = [f"at most {sum(counted):,} passes of the classifier"] if counted else []
    if timed:
        parts.append(f"{duration(sum(timed))} at the measured speed of the classifier alone")
    if len(counted) < len(known):
        parts.append(f"{len(known) - len(counted)} of {len(known)} unknown")
    return f"crafting: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``12 s``, ``3.5 min``, ``2.1 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


class _Meter:
    """Measures each kind of pass once, and looks at each data set once."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.shapes: dict[str, tuple[int, int, tuple[int, int, int]] | None] = {}
        self.speeds: dict[str, float] = {}

    def cost(self, node: Node) -> Cost:
        found = self.shape(node)
        if found is None:
            return Cost()
        images, classes, shape = found
        images = min(node.spec["images"] or images, images)
        try:
            bound = make_attack(node.spec["attack"]).max_passes(classes)
            if bound is None:
                return Cost()
            return Cost(images * bound, images * bound * self.seconds(node, images, classes, shape))
        except ValueError:  # an unfit value: crafting will say so
            return Cost()

    def shape(self, node: Node) -> tuple[int, int, tuple[int, int, int]] | None:
        """Number of test images, number of classes, and shape of a node's data; None where it is not there."""
        place = json.dumps(node.runtime["data"], sort_keys=True, default=str)
        if place not in self.shapes:
            try:
                data = _here(node, self.context)
                self.shapes[place] = len(data.test[1]), data.num_classes, data.shape
            except (FileNotFoundError, ValueError):
                self.shapes[place] = None
        return self.shapes[place]

    def seconds(self, node: Node, images: int, classes: int, shape: tuple[int, int, int]) -> float:
        """Seconds of a gradient pass of one image, in a batch as the node crafts it."""
        device = self.context.device(node)
        batch = min(node.runtime["batch_size"] or (512 if device.type == "cuda" else 64), images)
        spec, runtime = held(node).spec, node.runtime
        graphs = "detector" not in node.parents
        settings = [spec["model"], classes, shape, batch, graphs, str(device)]
        settings += [runtime[name] for name in ("fold", "micro_batch", "devices")]
        kind = json.dumps(settings, sort_keys=True)
        if kind not in self.speeds:
            with torch.random.fork_rng(devices=[]):
                classifier = build_classifier(spec, classes, shape[0]).eval().to(device)
            example = torch.full((batch, *shape), 0.5, device=device)
            output = Path(runtime["paths"]["output"])
            with as_one_of(device, runtime["devices"]):
                chosen = engine.choose(
                    output,
                    classifier,
                    spec["model"],
                    example,
                    runtime,
                    graphs=graphs,
                    always=True,
                    save=False,
                )
            # processes on a CPU share its threads, those on GPUs have one each
            shared = runtime["devices"] if device.type == "cuda" else 1
            self.speeds[kind] = chosen.seconds / shared
        return self.speeds[kind]


def _here(node: Node, context: Context) -> ImageData:
    """The data set of a node, without a download."""
    data: dict[str, Any] = node.runtime["data"]
    if data.get("download"):
        node = replace(node, runtime=node.runtime | {"data": data | {"download": False}})
    return context.data(node)
