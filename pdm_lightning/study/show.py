"""``pdml plan``: what a command would compute, without computing it. Nothing here imports more than planning needs."""

from __future__ import annotations

import gc
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pdm_lightning.stages.builders import own_modules, source_of
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.cost import WORK, Cost, costs, duration, total
from pdm_lightning.study.graph import Node, Plan
from pdm_lightning.study.plan import make_plan
from pdm_lightning.study.validate import validate

HEAD = ("stage", "key", "status", "passes", "time", "what", "after")
_RIGHT = {"passes", "time"}
STATES = ("cached", "stale", "running", "partial", "missing", "corrupt")


def show(cells: list[Cell]) -> int:
    """Print the graph of a study, a line a node, and what is ahead; return the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    with _without_collector():
        validate(cells)
        plan = make_plan(cells)
        settings = plan.settings
        store = Store(Path(settings["paths"]["output"]) / "store", on_stale=settings["store"]["on_stale"])
        states = statuses(plan, store)
        ahead = costs(_missing(plan, states, store), Context(store))
        print("\n".join(_lines(plan, states, ahead)))
    return 0


@contextmanager
def _without_collector() -> Iterator[None]:
    """A plan is kept to its end: to look through it, and through all of PyTorch, for garbage takes longer."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def statuses(nodes: Iterable[Node], store: Store) -> dict[str, str]:
    """By key, how each node stands: ``cached``, ``stale``, ``running``, ``partial``, ``missing`` or ``corrupt``."""
    survey, found = store.survey(), dict[str, str]()
    sources: dict[tuple[str, frozenset[str]], str] = {}
    for node in nodes:
        place = (node.kind, own_modules(node.spec))
        if place not in sources:
            sources[place] = source_of(node.kind, node.spec)
        found[node.key] = survey.status(node.kind, node.key, sources[place])
    return found


def missing_costs(plan: Plan, context: Context) -> dict[str, Cost]:
    """By key, the costs of the trainings and craftings that are not there yet."""
    return costs(_missing(plan, statuses(plan, context.store), context.store), context)


def _missing(plan: Plan, states: Mapping[str, str], store: Store) -> list[Node]:
    kept = ("cached", "stale") if store.on_stale == "warn" else ("cached",)
    return [node for node in plan if node.kind in WORK and states[node.key] not in kept]


def _lines(plan: Plan, states: Mapping[str, str], ahead: Mapping[str, Cost]) -> list[str]:
    yielded = [f"{plan.settings['name']}: {len(plan.entries)} cells, {len(plan.nodes)} nodes", ""]
    rows = [_row(node, states[node.key], ahead.get(node.key)) for node in plan]
    left_out = set() if ahead else _RIGHT
    yielded += table(HEAD, rows, left_out)
    yielded += ["", *_by_stage(plan, states, ahead), ""]
    if ahead:
        yielded.append(total(ahead.values()))
    refused = sum(bool(entry.refused) for entry in plan.entries)
    summary = Counter(states.values()) + Counter({"refused cells": refused})
    return [*yielded, ", ".join(f"{count} {state}" for state, count in sorted(summary.items()))]


def _row(node: Node, state: str, cost: Cost | None) -> tuple[str, ...]:
    return (node.kind, node.key, state, *_spoken(cost), node.title, " ".join(sorted(node.parents)))


def _by_stage(plan: Plan, states: Mapping[str, str], ahead: Mapping[str, Cost]) -> list[str]:
    """How many nodes of each stage stand how, and their cost together."""
    counts: dict[str, Counter[str]] = {}
    known: dict[str, list[Cost]] = {}
    for node in plan:
        counts.setdefault(node.kind, Counter())[states[node.key]] += 1
        if node.key in ahead:
            known.setdefault(node.kind, []).append(ahead[node.key])
    seen = [state for state in STATES if any(count[state] for count in counts.values())]
    rows = []
    for kind, count in counts.items():
        told = [cost for cost in known.get(kind, ()) if cost.seconds is not None]
        passes, seconds = sum(cost.passes or 0 for cost in told), sum(cost.seconds or 0.0 for cost in told)
        cost = _spoken(Cost(passes, seconds) if told else Cost() if kind in known else None)
        rows.append((kind, str(count.total()), *(str(count[state] or "") for state in seen), *cost))
    head = ("stage", "nodes", *seen, "passes", "time")
    return table(head, rows, set() if ahead else _RIGHT, right={"nodes", *seen, *_RIGHT})


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    left_out: Iterable[str] = (),
    right: Iterable[str] = _RIGHT,
) -> list[str]:
    """Lines of a table: columns as wide as their widest entry, the last one as it is.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : sequence of sequence of str
    left_out : iterable of str
        Columns that are not shown.
    right : iterable of str
        Columns of numbers, which end at the same place.
    """
    left_out, right = set(left_out), set(right)
    shown = [place for place, name in enumerate(head) if name not in left_out]
    whole = [head, *rows]
    widths = {place: max(len(row[place]) for row in whole) for place in shown}
    form = "  ".join(f"{{{place}:{'>' if head[place] in right else '<'}{widths[place]}}}" for place in shown)
    return [form.format(*row).rstrip() for row in whole]


def _spoken(cost: Cost | None) -> tuple[str, str]:
    """Passes and time, for the table; a question mark where they are unknown, nothing where nobody asks."""
    if cost is None:
        return "", ""
    passes = "?" if cost.passes is None else f"{cost.passes:,}"
    return passes, "?" if cost.seconds is None else duration(cost.seconds)
