"""The graph of a study: which stages its cells need, each of them once."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pdm_lightning.data import fingerprint
from pdm_lightning.stages.build import build_loss
from pdm_lightning.store import artifact_key
from pdm_lightning.study.cell import Cell
from pdm_lightning.threat import check

# The order in which a study runs: no stage waits for one that comes later.
WAVES = ("train", "features", "clean", "tsne", "detector", "craft", "score")

# What says where data are or how they are shown, not what they are.
_NOT_DATA = {"root", "download", "augment", "epochs_paper", "milestones", "pairs", "cache"}
# What names an attack, not what it does.
_NOT_ATTACK = {"cost", "lean"}


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


@dataclass(frozen=True)
class Entry:
    """A cell and the nodes that answer it; `refused` says why it cannot exist."""

    cell: Cell
    nodes: dict[str, Node]
    note: str = ""
    refused: str = ""


@dataclass
class Plan:
    """All entries of a study and the union of their nodes."""

    entries: list[Entry]

    @cached_property
    def nodes(self) -> list[Node]:
        """Every node once, in the order of the waves."""
        unique = {node.key: node for entry in self.entries for node in entry.nodes.values()}
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
    return Plan(entries)


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
        self.fingerprints: dict[str, str] = {}

    def node(
        self, kind: str, spec: dict[str, Any], title: str, runtime: dict[str, Any], **parents: Node
    ) -> Node:
        node = Node(kind, spec, parents, runtime, title)
        return self.known.setdefault(node.key, node)

    def entry(self, cell: Cell) -> Entry:
        config = cell.config
        names = [cell.name(group) for group in ("data", "model", "defense")]
        model_title = " ".join([*names, f"seed={config['seed']}"])
        runtime = {"data": config["data"], "trainer": config["trainer"], "paths": config["paths"]}
        logger = {"logger": config["logger"], "group": config["name"]}
        segment = {"segment": config["budget"]["train"]["segment"]}
        train = self.node("train", self.train_spec(config), model_title, runtime | logger | segment)
        features = self.node("features", features_spec(config), model_title, runtime, train=train)
        nodes = {"train": train, "features": features}
        nodes["clean"] = self.node("clean", {}, model_title, {}, features=features)
        if "tsne" in config["report"]["figures"]:
            nodes["tsne"] = self.node("tsne", dict(config["tsne"]), model_title, {}, features=features)
        if config["attack"]["name"] == "none":
            return Entry(cell, nodes)
        return self.attacked(cell, nodes, model_title, runtime)

    def attacked(self, cell: Cell, nodes: dict[str, Node], title: str, runtime: dict[str, Any]) -> Entry:
        config = cell.config
        refused = check(config["attack"], config["threat"])
        if refused:
            return Entry(cell, nodes, refused=refused)
        train, features = nodes["train"], nodes["features"]
        spec, note = craft_spec(config)
        if not config["threat"]["_target_"].endswith(".GrayBox"):  # other hands may get other gradients
            spec["threat"] = _settings(config["threat"])
        batch = dict(config["craft"]) | {"threat": config["threat"]}
        scores = _settings(config["detector"])
        detector = self.node("detector", scores, f"{title} {cell.name('detector')}", {}, features=features)
        title = f"{title} {cell.name('attack')}"
        craft = self.node("craft", spec, title, runtime | batch, train=train, features=features)
        score = self.node("score", dict(config["evaluate"]), title, {}, craft=craft, detector=detector)
        return Entry(cell, nodes | {"craft": craft, "detector": detector, "score": score}, note)

    def train_spec(self, config: dict[str, Any]) -> dict[str, Any]:
        """Everything that a training depends on; unused loss terms do not count."""
        defense = _settings(config["defense"])
        defense["term"] = {name: defense["term"][name] for name in defense["use"] if name in defense["term"]}
        if config["data"].get("pairs", "auto") == "always":
            defense["pairs"] = "always"
        defense["pairs"] = (
            "always" if defense["pairs"] == "always" or build_loss(defense).needs_pairs else "auto"
        )
        if defense["pairs"] == "auto":  # single images: how pairs would be made does not matter
            defense = {key: value for key, value in defense.items() if key not in ("q", "forward")}
        return {
            "data": self.data_spec(config["data"]),
            "augment": config["data"].get("augment"),
            "model": _settings(config["model"]),
            "defense": defense,
            "optimizer": _settings(config["optimizer"]),
            "train": {key: value for key, value in config["budget"]["train"].items() if key != "segment"},
            "seed": config["seed"],
        }

    def data_spec(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data set's identity: for an image folder a hash of what lies in it, not where it lies."""
        spec = _settings(data, _NOT_DATA)
        place = json.dumps(data, sort_keys=True)
        if place not in self.fingerprints:
            self.fingerprints[place] = fingerprint(data)
        return spec | {"fingerprint": self.fingerprints[place]}


def _settings(option: Mapping[str, Any], others: Container[str] = ()) -> dict[str, Any]:
    """An option of a group without what names or shows it, and without some others of its keys."""
    return {key: value for key, value in option.items() if key not in ("name", "label") and key not in others}


def features_spec(config: dict[str, Any]) -> dict[str, Any]:
    """Which clean images are embedded."""
    return dict(config["features"])


def craft_spec(config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What an attack's output depends on, and how the budget capped it.

    Returns
    -------
    spec : dict
        The attack's own parameters, the number of images, the seed.
    note : str
        How the iterations were capped, or ``""``. Whether the number of images is a cap shows only with the data.
    """
    attack, budget = dict(config["attack"]), config["budget"]
    spec = _settings(attack, _NOT_ATTACK)
    images = budget["images"].get(attack.get("cost", "medium"))
    note = ""
    cap = (budget.get("iterations") or {}).get(attack["name"])
    if cap is not None and cap < spec.get("max_iterations", cap):
        note = f"{cap} of {spec['max_iterations']} iterations"
        spec["max_iterations"] = cap
    return {"attack": spec, "images": images, "seed": config["seed"]}, note
