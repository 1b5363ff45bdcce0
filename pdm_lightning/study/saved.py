"""Nodes in a file, for the processes that a launcher starts: plain values, never a command line or a pickle."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pdm_lightning.study.plan import Node


def save_nodes(nodes: Iterable[Node], path: Path) -> None:
    """Write nodes as JSON; each has to come after its parents, as in `pdm_lightning.study.plan.Plan.nodes`."""
    told = {node.key: vars(node) | {"parents": node.parent_keys} for node in nodes}
    kept = ("kind", "spec", "parents", "runtime", "title")
    path.write_text(json.dumps({key: {name: node[name] for name in kept} for key, node in told.items()}))


def load_nodes(path: Path) -> dict[str, Node]:
    """Read what `save_nodes` wrote, by key.

    Raises
    ------
    ValueError
        Where a node is not the one that its key names: the file was changed, or comes from another version.
    """
    nodes: dict[str, Node] = {}
    for key, told in json.loads(path.read_text(encoding="utf-8")).items():
        parents = {role: nodes[parent] for role, parent in told["parents"].items()}
        node = Node(told["kind"], told["spec"], parents, told["runtime"], told["title"])
        if node.key != key:
            raise ValueError(
                f"{path}: {node.kind} {key} is {node.key} here: launch with the version that runs the jobs"
            )
        nodes[key] = node
    return nodes
