"""``pdml store ls``: what a store holds, a line an artifact."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pdm_lightning.spoken import duration, several, size, table
from pdm_lightning.stages.builders import SOURCES
from pdm_lightning.store import Store
from pdm_lightning.study.described import Descriptions
from pdm_lightning.study.stored import STATES, States, age_of, bytes_in, bytes_of, chosen
from pdm_lightning.survey import Leftover, Name, Survey

SORTS = ("kind", "size", "age")


def ls(store: Store, words: Sequence[str], *, as_json: bool = False, sort: str = "kind") -> int:
    """Print a line for each artifact that is meant, and what builds have left behind; return the exit status."""
    survey = store.survey()
    rows = _rows(survey, chosen(survey, words), sort)
    leftovers = [] if words else survey.leftovers()
    print(_json(survey, rows, leftovers) if as_json else "\n".join(_lines(rows, leftovers)))
    return 0


def _rows(survey: Survey, names: Sequence[Name], sort: str) -> list[dict[str, Any]]:
    words, states, now = Descriptions(survey), States(survey), time.time()
    rows = [
        {
            "kind": kind,
            "key": key,
            "size": bytes_of(survey, kind, key),
            "age": age_of(survey, kind, key, now),
            "status": states.of(kind, key),
            "what": words.of(key),
        }
        for kind, key in names
    ]
    waves = {kind: number for number, kind in enumerate(SOURCES)}
    if sort == "kind":  # as they are made
        return sorted(
            rows, key=lambda row: (waves.get(row["kind"], len(waves)), row["kind"], row["what"], -row["age"])
        )
    return sorted(rows, key=lambda row: row[sort], reverse=sort == "size")


def _lines(rows: Sequence[dict[str, Any]], leftovers: Sequence[Leftover]) -> Iterator[str]:
    head = ("kind", "key", "size", "age", "status", "what")
    told = [
        (row["kind"], row["key"], size(row["size"]), duration(row["age"]), row["status"], row["what"])
        for row in rows
    ]
    if told:
        yield from table(head, told, right=("size", "age"))
        yield ""
    for left in leftovers:
        yield f"{_left(left)}  {left.path.name}  {size(bytes_in(left.path))}"
    counts = Counter(row["status"] for row in rows)
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
    total = size(sum(row["size"] for row in rows))
    yield f"{several(len(rows), 'artifact')}, {total}" + (f": {states}" if rows else "")
    yield from (f"{state}: {STATES[state]}" for state in sorted(counts) if state != "cached")


def _left(left: Leftover) -> str:
    if left.what == "partial":
        return "being built" if left.held else "build that nobody works on"
    if left.what == "lease":
        return "lease, held" if left.held else "lease of a dead process"
    return "trash"


def _json(survey: Survey, rows: Sequence[dict[str, Any]], leftovers: Sequence[Leftover]) -> str:
    artifacts = [{**row, "path": str(survey.root / row["kind"] / row["key"])} for row in rows]
    left = [
        {"what": one.what, "held": one.held, "path": str(one.path), "size": bytes_in(one.path)}
        for one in leftovers
    ]
    return json.dumps({"artifacts": artifacts, "leftovers": left}, indent=1)
