"""What is computed from measured rows: means over successes, and ratios of ours to theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from benchmarks.measure import Row
from benchmarks.peers.ours import PATHS


def success(row: Row) -> float:
    """Share of the images with a judged success."""
    return float(row.verdict.won.double().mean()) if row.verdict else math.nan


def mean(row: Row, name: str) -> float:
    """Mean of a distance, "l2", "linf" or "l0", over the judged successes."""
    if row.verdict is None or not row.verdict.won.any():
        return math.nan
    values: Tensor = getattr(row.verdict, name)
    return float(values[row.verdict.won].double().mean())


def confidence(row: Row) -> float:
    """Smallest margin over the claimed successes."""
    if row.verdict is None or not row.verdict.claimed.any():
        return math.nan
    return float(row.verdict.lead[row.verdict.claimed].min())


def distance_ratio(ours: Row, theirs: Row) -> float:
    """Mean distance of ours over theirs, on the images that both win; by L2 where the family's norm is not Linf."""
    if ours.verdict is None or theirs.verdict is None:
        return math.nan
    both = ours.verdict.won & theirs.verdict.won
    name = "linf" if ours.family.norm == "linf" else "l2"
    mine, other = (getattr(row.verdict, name)[both].double() for row in (ours, theirs))
    return float(mine.mean() / other.mean()) if both.any() and other.mean() > 0 else math.nan


def time_ratio(ours: Row, theirs: Row) -> float:
    """Seconds of ours over theirs."""
    return ours.time / theirs.time if theirs.seconds and ours.seconds else math.nan


def reference(rows: Sequence[Row], path: str) -> Row | None:
    """The row of ours that ratios are taken of: the first of a path, "engine" or "exact"."""
    return next((row for row in rows if row.entry.path == path and not row.error), None)


def fastest(rows: Sequence[Row], allowed: Callable[[Row], bool]) -> Row | None:
    """The fastest of the libraries' rows that wins at all and is allowed."""
    found = [
        row for row in rows if not row.entry.path and not row.error and success(row) > 0 and allowed(row)
    ]
    return min(found, key=lambda row: row.time, default=None)


#: Whom a summary compares with, and which rows count.
RIVALS: dict[str, Callable[[Row], bool]] = {
    "any": lambda row: True,
    "right images": lambda row: not any(fault.wrong_result for fault in row.faults),
    "no fault": lambda row: not row.faults,
}


def summary(rows: Sequence[Row]) -> list[dict[str, object]]:
    """For one family: each path of ours against the fastest peer of each kind."""
    found: list[dict[str, object]] = []
    for path in PATHS:
        mine = reference(rows, path)
        for kind, allowed in RIVALS.items():
            rival = fastest(rows, allowed)
            if mine is None:
                continue
            found.append(
                {
                    "family": mine.family.key,
                    "ours": path,
                    "rival": kind,
                    "fastest peer": rival.entry.label if rival else "none",
                    "time ratio": time_ratio(mine, rival) if rival else math.nan,
                    "distance ratio": distance_ratio(mine, rival) if rival else math.nan,
                }
            )
    return found
