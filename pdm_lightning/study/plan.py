"""The graph of a study: which stages its cells need, each of them once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.store import artifact_key
from pdm_lightning.study import specs
from pdm_lightning.study.averages import Average, averages
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.compare import Comparison, comparisons
from pdm_lightning.study.probes import CardPlan, plan_card
from pdm_lightning.threat import check, needs, surrogate_of

# The order in which a study runs: no stage waits for one that comes later.
WAVES = (
    "train",
    "proxy",
    "features",
    "clean",
    "val_clean",
    "tsne",
    "splits",
    "gradients",
    "examples",
    "detector",
    "val_detector",
    "craft",
    "val_craft",
    "validity",
    "noise",
    "alarms",
    "selftest",
    "score",
    "val_score",
    "compare",
    "average",
    "worst",
)


@dataclass(frozen=True)
class Node:
    """One stage with everything that determines its output.

    Attributes
    ----------
    kind : str
        One of `WAVES`.
    spec : dict
        The part of the configuration that the output depends on; it makes the key.
    parents : dict of str to Node
        By role.
    runtime : dict
        What the stage needs to know and its output does not depend on (places, devices, batch sizes).
    """

    kind: str
    spec: dict[str, Any]
    parents: dict[str, Node] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict, compare=False)
    title: str = field(default="", compare=False)

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits: the name of the artifact in the store."""
        return artifact_key(self.kind, self.spec, self.parent_keys)

    @property
    def parent_keys(self) -> dict[str, str]:
        """Keys of the parents by role."""
        return {role: parent.key for role, parent in self.parents.items()}

    def __hash__(self) -> int:
        return hash((self.kind, self.key))


def ancestry(node: Node) -> Iterator[Node]:
    """The node's parents, theirs, and so on, each after its own parents; the node itself comes last."""
    for parent in node.parents.values():
        yield from ancestry(parent)
    yield node


@dataclass(frozen=True)
class Entry:
    """A cell and the nodes that answer it; `refused` says why it cannot exist."""

    cell: Cell
    nodes: dict[str, Node]
    note: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Worst:
    """All attacks on one model and detector, each image in the hands of the one that harms it most.

    Attributes
    ----------
    cell : Cell
        One of the cells.
    node : Node
        The ``worst`` node; its spec holds the ball (``norm``, ``eps``) that the attacks are held to.
    """

    cell: Cell
    node: Node

    @property
    def name(self) -> str:
        """``worst_linf_0.1``."""
        return f"worst_{self.node.spec['norm']}_{self.node.spec['eps']:g}"


@dataclass
class Plan:
    """All entries of a study and the union of their nodes."""

    entries: list[Entry]
    worst: list[Worst] = field(default_factory=list)
    card: CardPlan = field(default_factory=CardPlan)
    compared: list[Comparison] = field(default_factory=list)
    averaged: list[Average] = field(default_factory=list)

    @cached_property
    def nodes(self) -> list[Node]:
        """Every node once, in the order of the waves."""
        asked = [node for entry in self.entries for node in entry.nodes.values()]
        asked += [*(worst.node for worst in self.worst), *self.card.nodes, *(c.node for c in self.compared)]
        asked += [one.node for one in self.averaged]
        unique = {node.key: node for one in asked for node in ancestry(one)}
        return sorted(unique.values(), key=lambda node: WAVES.index(node.kind))

    @property
    def settings(self) -> dict[str, Any]:
        """Configuration of the first cell, for what all cells share (name, paths, report)."""
        return self.entries[0].cell.config

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)


def make_plan(cells: Iterable[Cell]) -> Plan:
    """Plan the cells.

    Raises
    ------
    PermissionError
        Where the only cell asks for what its threat model withholds; in a sweep such a cell is listed as refused.
    """
    cells = list(cells)
    planner = _Planner()
    entries = [planner.entry(cell) for cell in cells]
    _check_names(entries)
    if len(entries) == 1 and entries[0].refused:
        raise PermissionError(entries[0].refused)
    card, compared = plan_card(entries, planner.node), comparisons(entries, planner.node)
    averaged = averages(entries, planner.node)
    return Plan(entries, list(planner.worst(entries)), card, compared, averaged)


def _check_names(entries: list[Entry]) -> None:
    """ValueError where two different cells would be one row of a table."""
    last = {entry.cell.names(): entry for entry in entries}
    for entry in entries:
        other = last[entry.cell.names()]
        if {n.key for n in entry.nodes.values()} != {n.key for n in other.nodes.values()}:
            differ = sorted(set(entry.cell.overrides) ^ set(other.cell.overrides))
            raise ValueError(
                f"two cells of the sweep would have the same names in the tables: they differ in {', '.join(differ)} "
                "only; sweep it in two commands with name=... each"
            )


class _Planner:
    """Makes nodes and keeps one of each."""

    def __init__(self) -> None:
        self.known: dict[str, Node] = {}
        self.prints: dict[str, str] = {}
        self.detectors: dict[str, Any] = {}

    def node(
        self, kind: str, spec: dict[str, Any], title: str, runtime: dict[str, Any], **parents: Node
    ) -> Node:
        node = Node(kind, spec, parents, runtime, title)
        return self.known.setdefault(node.key, node)

    def entry(self, cell: Cell) -> Entry:
        config = cell.config
        names = {group: cell.name(group) for group in ("data", "model", "defense")}
        model_title = " ".join([*names.values(), f"seed={config['seed']}"])
        runtime = {"data": config["data"], "trainer": config["trainer"], "paths": config["paths"]}
        train = self.node(
            "train", specs.train_spec(config, self.prints), model_title, runtime | _training(config, names)
        )
        features = self.node("features", specs.features_spec(config), model_title, runtime, train=train)
        nodes = {"train": train, "features": features}
        nodes["clean"] = self.node("clean", {}, model_title, {}, features=features)
        if "tsne" in config["report"]["figures"]:
            nodes["tsne"] = self.node("tsne", dict(config["tsne"]), model_title, {}, features=features)
        if config["attack"]["name"] == "none":
            return Entry(cell, nodes)
        return self.attacked(cell, nodes, model_title, runtime)

    def attacked(self, cell: Cell, nodes: dict[str, Node], title: str, runtime: dict[str, Any]) -> Entry:
        config = cell.config
        refused = check(config["attack"], config["threat"], config["detector"])
        if refused:
            return Entry(cell, nodes, refused=refused)
        spec, note = specs.craft_spec(config)
        batch = dict(config["craft"]) | {"threat": config["threat"]}
        detector = self.detector(cell, nodes["features"], runtime)
        held = self.surrogate(cell, nodes["train"], title, runtime)
        parents = {"train": nodes["train"], "features": nodes["features"], **held}
        if "detector" in needs(config["attack"]):
            seen = held.get("surrogate_features", nodes["features"])
            parents["detector"] = self.detector(cell, seen, runtime)
            spec["aim"] = specs.aim_spec(config)
        title = f"{title} {cell.name('attack')}" + (f" {cell.name('threat')}" if held else "")
        craft = self.node("craft", spec, title, runtime | batch, **parents)
        judges = {"detector": detector}
        if held:  # who is asked what the surrogate makes of the clean images
            judges["surrogate_features"] = held["surrogate_features"]
        score = self.node("score", specs.score_spec(config), title, {}, craft=craft, **judges)
        return Entry(cell, nodes | held | {"craft": craft, "detector": detector, "score": score}, note)

    def detector(self, cell: Cell, features: Node, runtime: dict[str, Any]) -> Node:
        """The cell's detector on a classifier whose features are given."""
        config, spec = cell.config, specs.detector_spec(cell.config)
        place = json.dumps(spec, sort_keys=True)
        if place not in self.detectors:
            self.detectors[place] = instantiate(spec, "detector")
        detector, train = self.detectors[place], features.parents["train"]
        title = f"{features.title} {cell.name('detector')}"
        seen = specs.features_spec(config, detector.reads)
        parents = {"features": features}
        if "layers" in seen:
            parents["features"] = self.node("features", seen, features.title, runtime, train=train)
        if detector.needs_attack:
            attack, threat = config["detector"]["attack"], {"_target_": "pdm_lightning.threat.GrayBox"}
            what = f"{features.title} {attack['name']}"
            hands = runtime | dict(config["craft"]) | {"threat": threat}
            examples = specs.examples_spec(config, attack, threat)
            parents["examples"] = self.node("examples", examples, what, hands, train=train, features=features)
        return self.node("detector", spec, title, runtime if detector.needs_images else {}, **parents)

    def surrogate(self, cell: Cell, train: Node, title: str, runtime: dict[str, Any]) -> dict[str, Node]:
        """The model that the adversary works on where it is not the target's, and its features."""
        config, threat = cell.config, cell.config["threat"]
        kind = surrogate_of(threat)
        if not kind:
            return {}
        named = {"data": cell.name("data"), "model": cell.name("model"), "defense": kind}
        if kind == "proxy":
            runtime = runtime | _training(config, named | {"model": threat["proxy"]["model"]["name"]})
            model = self.node(
                "proxy", specs.proxy_spec(config, self.prints), f"proxy of {title}", runtime, train=train
            )
        else:
            own = config | {
                "defense": threat["own"]["defense"],
                "seed": config["seed"] + threat["own"]["seed"],
            }
            named["defense"] = own["defense"]["name"]
            runtime = runtime | _training(own, named)
            called = " ".join([*named.values(), f"seed={own['seed']}"])
            model = self.node("train", specs.train_spec(own, self.prints), called, runtime)
        features = self.node("features", specs.features_spec(config), model.title, runtime, train=model)
        return {"surrogate": model, "surrogate_features": features}

    def worst(self, entries: list[Entry]) -> Iterator[Worst]:
        """One node for each model, detector and ball that an attack of the study declares."""
        groups: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            if "score" in entry.nodes and entry.cell.config["evaluate"]["worst_case"]:
                place = (entry.nodes["detector"].key, json.dumps(entry.nodes["score"].spec, sort_keys=True))
                groups.setdefault(place, []).append(entry)
        for group in groups.values():
            found = {entry.nodes["score"].key: entry.nodes["score"] for entry in group}
            scores = sorted(
                found.values(), key=lambda score: score.key
            )  # in whatever order they were asked for
            attacks = [entry.cell.config["attack"] for entry in group]
            balls = {(a.get("norm", "linf"), float(a["eps"])) for a in attacks if a.get("eps")}
            for norm, eps in sorted(balls) if len(scores) > 1 else ():
                spec = {"norm": norm, "eps": eps, "min_n": group[0].cell.config["evaluate"]["min_n"]}
                parents = {f"score{number:02d}": score for number, score in enumerate(scores)}
                title = f"{group[0].nodes['detector'].title} {norm} {eps:g}"
                yield Worst(group[0].cell, self.node("worst", spec, title, {}, **parents))


def _training(config: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """What a training, of whichever kind, needs to know and its outcome does not depend on; `names` show it."""
    return {
        "logger": config["logger"],
        "group": config["name"],
        "segment": config["budget"]["train"]["segment"],
        "axes": names | {"budget": config["budget"]["name"], "seed": config["seed"]},
    }
