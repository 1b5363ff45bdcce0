"""What training and crafting will cost: passes at most, and seconds from passes that are measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pdm_lightning.spoken import duration
from pdm_lightning.stages.context import Context
from pdm_lightning.stages.hands import held, make_attack
from pdm_lightning.stages.shards import as_one_of
from pdm_lightning.stages.speed import Speed
from pdm_lightning.study.graph import Node
from pdm_lightning.study.sizes import Sizes, sizes

#: The stages whose cost is told, and what it is called; the others pass images forward once or compute from files.
WORK = {"train": "training", "proxy": "training", "craft": "crafting"}
_PASSES = {"training": "images forward and backward", "crafting": "passes of the classifier"}


@dataclass(frozen=True)
class Cost:
    """What a node takes at most; None where that cannot be told.

    Attributes
    ----------
    passes : int or None
        Crafting: gradient passes of the attacked classifier (queries, for an attack without gradients), all images
        together. Training: images that go forward and backward, those of all steps together.
    seconds : float or None
        Their time on this device, at the speed of the classifier alone: a detector's share is not in it, nor loading.
    work : {"crafting", "training"}
    """

    passes: int | None = None
    seconds: float | None = None
    work: str = "crafting"


def costs(nodes: Iterable[Node], context: Context) -> dict[str, Cost]:
    """By key, what each training and each crafting takes; nodes of other kinds are passed over.

    Crafting: passes = images x `attacks.Attack.max_passes`. Training: passes = steps x images a step. A pass of each
    kind is measured once for each (model, shape, batch size) on an untrained classifier, and kept in the folder
    ``passes`` of the study's output. Nothing is downloaded: without the data of a set of the user's own a cost is
    unknown.

    Parameters
    ----------
    nodes : iterable of Node
        Such as a `Plan`.
    context : Context
        For data sets and devices.
    """
    meter = _Meter(context)
    return {node.key: meter.cost(node) for node in nodes if node.kind in WORK}


def total(known: Iterable[Cost]) -> str:
    """All costs, a line for each kind of work; empty where there is none."""
    known = list(known)
    lines = []
    for work, passes in _PASSES.items():
        of_kind = [cost for cost in known if cost.work == work]
        if not of_kind:
            continue
        counted = [cost.passes for cost in of_kind if cost.passes is not None]
        timed = [cost.seconds for cost in of_kind if cost.seconds is not None]
        parts = [f"at most {sum(counted):,} {passes}"] if counted else []
        if timed:
            parts.append(
                f"{duration(sum(timed))} at the speed of the classifier alone as measured on this machine"
            )
        if len(counted) < len(of_kind):
            parts.append(f"{len(of_kind) - len(counted)} of {len(of_kind)} unknown")
        lines.append(f"{work}: {', '.join(parts)}")
    return "\n".join(lines)


class _Meter:
    """Measures each kind of pass once, and looks at each data set and attack once."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._sizes: dict[str, Sizes | None] = {}
        self._bounds: dict[tuple[str, int], int | None] = {}
        self._seconds: dict[str, float] = {}

    def cost(self, node: Node) -> Cost:
        found, work = self.sizes(node), WORK[node.kind]
        if found is None:
            return Cost(work=work)
        try:
            return self.crafting(node, found) if work == "crafting" else self.training(node, found)
        except Exception:  # an unfit value, or a network that takes no such images: the stage will say so
            return Cost(work=work)

    def crafting(self, node: Node, found: Sizes) -> Cost:
        images = min(node.spec["images"] or found.test, found.test)
        bound = self.bound(node.spec["attack"], found.classes)
        if bound is None:
            return Cost()
        device, craft = self.context.device(node), node.runtime
        batch = min(craft["batch_size"] or (512 if device.type == "cuda" else 64), images)
        how = {name: craft[name] for name in ("fold", "micro_batch", "devices")}
        how |= {"batch": batch, "graphs": "detector" not in node.parents}
        seconds = self.seconds(node, held(node), found, how)
        # processes on a CPU share its threads, those on GPUs have one each
        shared = craft["devices"] if device.type == "cuda" else 1
        return Cost(images * bound, images * bound * seconds / shared)

    def training(self, node: Node, found: Sizes) -> Cost:
        steps, images = steps_of(node.spec, found.train)
        if not steps:
            return Cost(0, 0.0, "training")
        seconds = self.seconds(node, node, found, {"batch": images})
        gpus = self.context.device(node).type == "cuda"
        shared = int(node.runtime["trainer"].get("devices", 1)) if gpus else 1
        return Cost(steps * images, steps * images * seconds / shared, "training")

    def sizes(self, node: Node) -> Sizes | None:
        data: dict[str, Any] = node.runtime["data"]
        place = json.dumps(data, sort_keys=True, default=str)
        if place not in self._sizes:

            def load(data: dict[str, Any]) -> Any:
                return self.context.data(replace(node, runtime=node.runtime | {"data": data}))

            self._sizes[place] = sizes(data, load)
        return self._sizes[place]

    def bound(self, attack: dict[str, Any], classes: int) -> int | None:
        """Passes that the attack takes of an image at most; None where it does not say."""
        place = (json.dumps(attack, sort_keys=True), classes)
        if place not in self._bounds:
            self._bounds[place] = make_attack(attack).max_passes(classes)
        return self._bounds[place]

    def seconds(self, node: Node, model: Node, found: Sizes, how: dict[str, Any]) -> float:
        """Seconds an image of a pass or a step, on the device of a node, for the classifier of another."""
        device = self.context.device(node)
        spec = {part: model.spec[part] for part in ("model", "defense")}
        alike = [spec["model"], found.classes, found.shape, how, str(device)]
        place = json.dumps(alike, sort_keys=True)
        if place not in self._seconds:
            speed = Speed(Path(node.runtime["paths"]["output"]), spec, found.classes, found.shape, device)
            if "graphs" in how:
                with as_one_of(device, how["devices"]):
                    self._seconds[place] = speed.of_pass(how["batch"], how, graphs=how["graphs"])
            else:
                self._seconds[place] = speed.of_step(how["batch"])
        return self._seconds[place]


def steps_of(spec: dict[str, Any], train: int) -> tuple[int, int]:
    """Steps of a training on so many images, and images of a step (of pairs, both)."""
    if not spec["defense"]["use"]:  # published as it is
        return 0, 0
    batch = min(int(spec["train"]["batch_size"]), train)
    steps = spec["train"]["steps"]
    if steps is None:
        steps = max(1, round(float(spec["train"]["epochs"]) * (train // batch)))
    return int(steps), batch * (2 if spec["defense"]["pairs"] == "always" else 1)
