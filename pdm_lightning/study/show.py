"""``pdml plan``: what a command would compute, without computing it. Nothing here imports more than planning needs."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path

from pdm_lightning.spoken import duration, table
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.cost import WORK, Cost, costs, total
from pdm_lightning.study.graph import Node, Plan
from pdm_lightning.study.plan import make_plan
from pdm_lightning.study.standing import STATES, due, kept, statuses
from pdm_lightning.study.validate import validate

HEAD = ("stage", "key", "status", "passes", "time", "what", "after")
_COST = ("passes", "time")


def show(cells: list[Cell]) -> int:
    """Print the graph of a study, a line a node, and what is ahead; return the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    validate(cells)
    plan = make_plan(cells)
    settings = plan.settings
    store = Store(Path(settings["paths"]["output"]) / "store", on_stale=settings["store"]["on_stale"])
    states = statuses(plan, store)
    ahead = due(plan, states, store)
    # what is there but stands behind what is not: it stays only where its parents come out as they were
    states |= {key: "orphaned" for key in ahead if states[key] in kept(store)}
    print("\n".join(_lines(plan, states, _costs(plan, ahead, Context(store)))))
    return 0


def missing_costs(plan: Plan, context: Context) -> dict[str, Cost]:
    """By key, the costs of the trainings and craftings that are to be done, at most."""
    return _costs(plan, due(plan, statuses(plan, context.store), context.store), context)


def _costs(plan: Plan, ahead: Container[str], context: Context) -> dict[str, Cost]:
    return costs((node for node in plan if node.kind in WORK and node.key in ahead), context)


def _lines(plan: Plan, states: Mapping[str, str], ahead: Mapping[str, Cost]) -> list[str]:
    yielded = [f"{plan.settings['name']}: {len(plan.entries)} cells, {len(plan.nodes)} nodes", ""]
    rows = [_row(node, states[node.key], ahead.get(node.key)) for node in plan]
    yielded += table(HEAD, rows, left_out=() if ahead else _COST, right=_COST)
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
    return table(head, rows, left_out=() if ahead else _COST, right={"nodes", *seen, *_COST})


def _spoken(cost: Cost | None) -> tuple[str, str]:
    """Passes and time, for the table; a question mark where they are unknown, nothing where nobody asks."""
    if cost is None:
        return "", ""
    passes = "?" if cost.passes is None else f"{cost.passes:,}"
    return passes, "?" if cost.seconds is None else duration(cost.seconds)
