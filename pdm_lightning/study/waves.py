"""The waves in which a plan is launched: no job of a wave waits for another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pdm_lightning.study.plan import Node

KINDS = (
    ("train",),
    ("proxy",),
    (
        *(
            "features",
            "clean",
            "val_clean",
            "tsne",
            "splits",
            "gradients",
            "bound",
            "layer_gradients",
            "walk",
        ),
        *("examples", "detector", "val_detector"),
    ),
    ("craft", "val_craft", "validity", "noise", "alarms", "selftest"),
    ("score", "val_score"),
    ("compare", "average", "worst", "rank", "bandwidths"),
)
"""Kinds of nodes by wave."""
SHORT = {"score", "val_score", "compare", "average", "worst", "rank", "bandwidths"}
"""Kinds that take seconds: many of them make one job."""


@dataclass(frozen=True)
class Wave:
    """Jobs that may run at the same time.

    Attributes
    ----------
    kinds : tuple of str
        Kinds of their nodes.
    jobs : list of list of Node
        Nodes of a job, each after its parents.
    """

    kinds: tuple[str, ...]
    jobs: list[list[Node]]

    @property
    def nodes(self) -> list[Node]:
        """The nodes of all jobs."""
        return [node for job in self.jobs for node in job]

    @property
    def short(self) -> bool:
        """Whether all of it takes seconds."""
        return SHORT.issuperset(self.kinds)

    def shared_by(self, jobs: int) -> Wave:
        """The same nodes in at most so many jobs, where they are short."""
        if not self.short or len(self.jobs) <= jobs:
            return self
        return Wave(self.kinds, [[node for job in self.jobs[i::jobs] for node in job] for i in range(jobs)])


def waves(nodes: Iterable[Node]) -> Iterator[Wave]:
    """Put nodes, each after its parents, into waves; those that depend on each other within one are one job.

    A model's features and all that follows from them before an attack are one job, so is an attack with what is
    measured of its images: their data and their model are opened once.
    """
    nodes = list(nodes)
    for kinds in KINDS:
        jobs = _components([node for node in nodes if node.kind in kinds])
        if jobs:
            yield Wave(kinds, jobs)


def _components(nodes: list[Node]) -> list[list[Node]]:
    """Groups of nodes that are connected through parents, in the order of their first nodes."""
    group = {node.key: node.key for node in nodes}

    def root(key: str) -> str:
        while group[key] != key:
            key = group[key]
        return key

    for node in nodes:
        for parent in node.parents.values():
            if parent.key in group:
                group[root(node.key)] = root(parent.key)
    found: dict[str, list[Node]] = {}
    for node in nodes:
        found.setdefault(root(node.key), []).append(node)
    return list(found.values())
