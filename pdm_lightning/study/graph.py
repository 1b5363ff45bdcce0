"""The graph of a study: nodes, each a stage with its parents, and the cells that they answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pdm_lightning.store import artifact_key
from pdm_lightning.study.averages import Average
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.compare import Comparison
from pdm_lightning.study.measure import Measurement
from pdm_lightning.study.probes import CardPlan

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
    "bound",
    "layer_gradients",
    "walk",
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
    "rank",
    "bandwidths",
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


def _gather(node: Node, found: dict[str, Node]) -> None:
    """Add the node's parents, theirs, and so on, and the node itself, each once and after its own parents."""
    if node.key not in found:
        for parent in node.parents.values():
            _gather(parent, found)
        found[node.key] = node


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
    measured: list[Measurement] = field(default_factory=list)

    @cached_property
    def nodes(self) -> list[Node]:
        """Every node once, in the order of the waves."""
        asked = [node for entry in self.entries for node in entry.nodes.values()]
        asked += [*(worst.node for worst in self.worst), *self.card.nodes, *(c.node for c in self.compared)]
        asked += [*(one.node for one in self.averaged), *(one.node for one in self.measured)]
        unique: dict[str, Node] = {}
        for node in asked:
            _gather(node, unique)
        place = {kind: number for number, kind in enumerate(WAVES)}
        return sorted(unique.values(), key=lambda node: place[node.kind])

    @property
    def settings(self) -> dict[str, Any]:
        """Configuration of the first cell, for what all cells share (name, paths, report)."""
        return self.entries[0].cell.config

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)
