"""Which detectors of a study are ranked, by their mean AUC over which attacks, and the rows that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pdm_lightning.report.results import MEAN_AUC
from pdm_lightning.report.rows import Row
from pdm_lightning.store import Artifact
from pdm_lightning.study import specs
from pdm_lightning.study.cell import GROUPS

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Entry, Node

MakeNode = Callable[..., "Node"]
TABLE = "detectors"
"""The word of ``report.tables`` that asks for a ranking."""
ALL = "all"
"""What such a row calls its attack: it belongs to several."""


@dataclass(frozen=True)
class Average:
    """One detector's attacks on one model, in one threat model.

    Attributes
    ----------
    entry : Entry
        One of the cells.
    metric : str
        One of `pdm_lightning.report.results.MEAN_AUC`.
    node : Node
        Of kind ``average``.
    """

    entry: Entry
    metric: str
    node: Node


def seen(entry: Entry) -> bool:
    """Whether an entry's detector was fitted on the very attack that it is tried on, with all its parameters."""
    config = entry.cell.config
    attack = config["detector"].get("attack")
    if attack is None or "craft" not in entry.nodes:
        return False
    fitted = specs.examples_spec(config, attack, config["threat"])["attack"]
    return bool(fitted == entry.nodes["craft"].spec["attack"])


def fitted(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """By the name of each detector that is fitted on an attack, the names of those of the study that are that one."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        if "detector" in entry.nodes and entry.cell.config["detector"].get("attack") is not None:
            known = found.setdefault(entry.cell.name("detector"), [])
            name = entry.cell.name("attack")
            if seen(entry) and name not in known:
                known.append(name)
    return found


def averages(entries: Iterable[Entry], make: MakeNode) -> list[Average]:
    """Average each detector that another one stands beside: over the attacks that no detector has seen, and over all.

    Only entries whose ``report.tables`` names ``detectors`` take part, and of these those that have a score.

    Parameters
    ----------
    entries : iterable of Entry
    make : callable
        Makes a node: ``make(kind, spec, title, runtime, **parents)``, each of them once.
    """
    places: dict[tuple[str, ...], dict[str, list[Entry]]] = {}
    for entry in entries:
        if "score" in entry.nodes and TABLE in entry.cell.config["report"]["tables"]:
            place = (*(entry.cell.name(group) for group in _PLACE), str(entry.cell.config["seed"]))
            places.setdefault(place, {}).setdefault(entry.cell.name("detector"), []).append(entry)
    found = []
    for detectors in places.values():
        spoilt = {e.cell.name("attack") for group in detectors.values() for e in group if seen(e)}
        for group in detectors.values() if len(detectors) > 1 else ():
            blind = [entry for entry in group if entry.cell.name("attack") not in spoilt]
            for metric, members in zip(MEAN_AUC, (blind, group), strict=True):
                if members:
                    found.append(Average(group[0], metric, _node(members, make)))
    return found


_PLACE = tuple(group for group in GROUPS if group not in ("attack", "detector"))


def _node(members: list[Entry], make: MakeNode) -> Node:
    evaluate = members[0].cell.config["evaluate"]
    spec = {"bootstrap": evaluate["bootstrap"], "min_n": evaluate["min_n"]}
    scores = {entry.nodes["score"].key: entry.nodes["score"] for entry in members}
    # in whatever order they were asked for
    parents = {f"score{number:02d}": scores[key] for number, key in enumerate(sorted(scores))}
    return make("average", spec, members[0].nodes["detector"].title, {}, **parents)


def rows(
    averaged: Iterable[Average],
    opened: Callable[[Node], Artifact | None],
    status: Callable[[Node], str],
    bandwidth: Callable[[dict[str, Any]], str | float],
) -> Iterator[Row]:
    """Rows of the averages, whose attack is called ``all``.

    Parameters
    ----------
    averaged : iterable of Average
    opened : callable
        The artifact of a node, or None where there is none.
    status : callable
        ``failed`` or ``missing``, of a node without an artifact.
    bandwidth : callable
        What the column ``bandwidth`` says of a detector's configuration.
    """
    for one in averaged:
        config = one.entry.cell.config
        common: dict[str, Any] = {group: one.entry.cell.name(group) for group in GROUPS}
        common |= {"seed": config["seed"], "bandwidth": bandwidth(config["detector"]), "attack": ALL}
        common |= {"artifact": one.node.key, "metric": one.metric}
        artifact = opened(one.node)
        told = {} if artifact is None else artifact.json("average.json")
        if artifact is None or told["value"] is None:
            yield Row(**common, status=status(one.node) if artifact is None else "n/a")
        else:
            note = f"{told['attacks']} attacks"
            limits = {"value": told["value"], "ci_low": told["low"], "ci_high": told["high"]}
            yield Row(**common, **limits, n=told["n"], note=note)
