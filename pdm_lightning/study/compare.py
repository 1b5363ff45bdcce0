"""Which scores of a study are compared image by image, and the rows that come of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pdm_lightning.report.rows import Row
from pdm_lightning.store import Artifact
from pdm_lightning.study.cell import GROUPS

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Entry, Node

MakeNode = Callable[..., "Node"]
TABLE = "differences"
"""The word of ``report.tables`` that asks for comparisons."""
#: Times ``evaluate.bootstrap``: of 1,000 resamples no p-value is below 2 / 1001, which a correction for more than 25
#: tests would lift above 0.05 whatever the scores; 10,000 leave room for 250.
RESAMPLES = 10
#: What is compared: a defence with the first listed, and a detector with the first listed.
AXES = ("defense", "detector")


@dataclass(frozen=True)
class Comparison:
    """Two entries that differ in one axis alone.

    Attributes
    ----------
    axis : str
        One of `AXES`.
    a, b : Entry
        ``b`` is the reference, of which a difference is taken away.
    node : Node
        Of kind ``compare``.
    """

    axis: str
    a: Entry
    b: Entry
    node: Node

    @property
    def reference(self) -> str:
        """What the rows call the reference: the name of its defence or detector."""
        return self.b.cell.name(self.axis)


def comparisons(entries: Iterable[Entry], make: MakeNode) -> list[Comparison]:
    """Pair each defence, and each detector, with the first listed for the same everything else.

    Only entries whose ``report.tables`` names ``differences`` take part, and of these those that have a score.

    Parameters
    ----------
    entries : iterable of Entry
    make : callable
        Makes a node: ``make(kind, spec, title, runtime, **parents)``, each of them once.
    """
    asked = [
        entry
        for entry in entries
        if "score" in entry.nodes and TABLE in entry.cell.config["report"]["tables"]
    ]
    found: dict[tuple[str, ...], Comparison] = {}
    for axis in AXES:
        first: dict[tuple[str, ...], Entry] = {}
        for entry in asked:
            reference = first.setdefault(_but(entry, axis), entry)
            # one artifact under two names is one and the same
            if reference.nodes["score"].key != entry.nodes["score"].key:
                made = Comparison(axis, entry, reference, _node(entry, reference, make))
                found.setdefault((axis, *entry.cell.names()), made)
    return list(found.values())


def _but(entry: Entry, axis: str) -> tuple[str, ...]:
    """The names of an entry, all but that of one axis."""
    names = [entry.cell.name(group) for group in GROUPS if group != axis]
    return (*names, str(entry.cell.config["seed"]))


def _node(a: Entry, b: Entry, make: MakeNode) -> Node:
    evaluate = a.cell.config["evaluate"]
    spec = {"bootstrap": RESAMPLES * evaluate["bootstrap"], "min_n": evaluate["min_n"]}
    title = f"{a.nodes['detector'].title} {a.cell.name('attack')} minus {b.nodes['detector'].title}"
    return make("compare", spec, title, {}, a=a.nodes["score"], b=b.nodes["score"])


def rows(
    compared: Iterable[Comparison],
    opened: Callable[[Node], Artifact | None],
    status: Callable[[Node], str],
    bandwidth: Callable[[dict[str, Any]], str | float],
    notes: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Rows of the comparisons, named as the entry ``a`` is, with the reference in the metric.

    ``auc_minus:ce`` is the AUC minus that of ``ce`` and ``p_minus:ce`` its p-value;
    ``joint_success_minus:ce@0.05`` and ``p_joint_success_minus:ce@0.05`` likewise.

    Parameters
    ----------
    compared : iterable of Comparison
    opened : callable
        The artifact of a node, or None where there is none.
    status : callable
        ``failed`` or ``missing``, of a node without an artifact.
    bandwidth : callable
        What the column ``bandwidth`` says of a detector's configuration.
    notes : mapping of str to str, optional
        Notes of rows by the key of their ``score`` artifact; those of ``a`` are kept.
    """
    for one in compared:
        artifact = opened(one.node)
        kept = (notes or {}).get(one.a.nodes["score"].key, "")
        config = one.a.cell.config
        common: dict[str, Any] = {group: one.a.cell.name(group) for group in GROUPS}
        common |= {"seed": config["seed"], "bandwidth": bandwidth(config["detector"])}
        common["artifact"] = one.node.key
        if artifact is None:
            yield Row(**common, metric=f"auc_minus:{one.reference}", status=status(one.node), note=kept)
            continue
        measured = artifact.json("compare.json")
        common["n_attacked"] = measured["images"]
        for metric, found in measured.items():
            if metric != "images":
                yield from _pair(common, metric, one.reference, found, kept)


def _pair(
    common: dict[str, Any], metric: str, reference: str, found: dict[str, Any], kept: str
) -> Iterator[Row]:
    """The difference, and its p-value."""
    name, at, fpr = metric.partition("@")
    suffix = f"_minus:{reference}{at}{fpr}"
    if found["value"] is None or not math.isfinite(found["value"]):
        yield Row(**common, metric=name + suffix, n=found["n"], status="n/a", note=kept)
        return
    note = "; ".join(part for part in (kept, f"p={found['p']:.3g}") if part)
    yield Row(
        **common,
        metric=name + suffix,
        value=found["value"],
        ci_low=found["low"],
        ci_high=found["high"],
        n=found["n"],
        note=note,
    )
    p = f"p{suffix}" if name == "auc" else f"p_{name}{suffix}"
    yield Row(**common, metric=p, value=found["p"], n=found["n"], note=note)
