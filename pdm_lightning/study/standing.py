"""How the nodes of a plan stand in the store, and which of them a run has to look at again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from pdm_lightning.stages.builders import own_modules, source, source_of
from pdm_lightning.store import Store
from pdm_lightning.study.graph import Node

STATES = ("cached", "stale", "orphaned", "running", "partial", "missing", "corrupt")


def status(store: Store, node: Node) -> str:
    """How a node stands: one of `STATES`, as `Store.status` says."""
    return store.status(node.kind, node.key, source(node))


def statuses(nodes: Iterable[Node], store: Store) -> dict[str, str]:
    """By key, the `status` of each node; the store's folders are listed once for all of them."""
    survey, found = store.survey(), dict[str, str]()
    sources: dict[tuple[str, frozenset[str]], str] = {}
    for node in nodes:
        place = (node.kind, own_modules(node.spec))
        if place not in sources:
            sources[place] = source_of(node.kind, node.spec)
        found[node.key] = survey.status(node.kind, node.key, sources[place])
    return found


def kept(store: Store) -> tuple[str, ...]:
    """What `status` says of nodes that are taken as they are, where all that they were made of is."""
    return ("cached", "stale") if store.on_stale == "warn" else ("cached",)


def due(
    nodes: Iterable[Node], states: Mapping[str, str], store: Store, anew: Set[str] = frozenset()
) -> set[str]:
    """Keys of the nodes that are not taken as they are, and of all that stand behind one of these.

    Whether those behind are built anew shows only when their parents are there: `Store.get` decides then.

    Parameters
    ----------
    nodes : iterable of Node
        Each after its parents.
    states : mapping of str to str
        Their `statuses`.
    anew : set of str
        Keys of other nodes, that were built just now.
    """
    fine, found = kept(store), set[str]()
    for node in nodes:
        behind = any(parent.key in found or parent.key in anew for parent in node.parents.values())
        if behind or states[node.key] not in fine:
            found.add(node.key)
    return found
