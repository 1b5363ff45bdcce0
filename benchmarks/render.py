"""Measured rows as Markdown and CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.measure import Row

TITLES = {"l2": "L2", "linf": "Linf", "l0": "L0"}
NOTES = """\
- success: judged on the original model, whatever the library says: misclassified as asked, by the confidence, finite,
  in [0, 1], in the ball, not blank. Distances are means over these.
- margin: the smallest margin of logits over the successes that the library claims (where it claims none: over the
  misclassified images it returns).
- forwards, backwards: images that went through the model, by hooks, an attacked image.
- seconds: all images, fastest of the rounds, which went over the implementations in turns, up to the knowledge of which
  are successes (where a library does not say, one forward pass of the model); wrapping or preparing a model is timed
  apart (`build`). A run longer than the limit has one round.
- engine/theirs, exact/theirs: our seconds over theirs; distance: the engine's mean distance over theirs where both
  succeed (L2, for a Linf family Linf). Of several rows of ours the first counts.
- faults are found by measurement. `right images` in the summary leaves out peers whose images or claims are wrong;
  `no fault` also those that leave gradients on the model or change its mode."""


def markdown(rows: Sequence[Row], settings: Mapping[str, Any], missing: Sequence[str]) -> str:
    """The whole report as Markdown."""
    parts = ["# Attacks, side by side", _settings(settings)]
    if missing:
        parts.append(f"Missing, their rows are left out: {', '.join(missing)}.")
    summaries = []
    for _, group in groupby(rows, key=lambda row: row.family.key):
        held = list(group)
        parts.append(_family(held))
        summaries += figures.summary(held)
    parts += ["## Summary", _summary(summaries), "## What the columns mean", NOTES]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def number(value: float, digits: int = 3) -> str:
    """A number in few characters; empty where there is none."""
    if not math.isfinite(value):
        return ""
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line an implementation, with every round."""
    lines = [record(row, rows) for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def record(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """All figures of a row, by column of the CSV."""
    held = [other for other in rows if other.family == row.family]
    engine, exact = (figures.reference(held, path) for path in ("engine", "exact"))
    return {
        "family": row.family.key,
        "implementation": row.entry.label,
        "library": row.entry.library,
        "path": row.entry.path,
        "n": row.n,
        "claimed": float(row.verdict.claimed.double().mean()) if row.verdict else "",
        "success": figures.success(row),
        "l2": figures.mean(row, "l2"),
        "linf": figures.mean(row, "linf"),
        "l0": figures.mean(row, "l0"),
        "confidence": figures.confidence(row),
        "forwards": row.forwards,
        "backwards": row.backwards,
        "seconds": row.time if row.seconds else "",
        "rounds": " ".join(f"{seconds:.6f}" for seconds in row.seconds),
        "build_seconds": row.build_seconds,
        "engine_ratio": figures.time_ratio(engine, row) if engine else "",
        "exact_ratio": figures.time_ratio(exact, row) if exact else "",
        "distance_ratio": figures.distance_ratio(engine, row) if engine else "",
        "faults": "; ".join(fault.text for fault in row.faults),
        "fault_kinds": " ".join(fault.kind for fault in row.faults),
        "error": row.error,
    }


def _settings(settings: Mapping[str, Any]) -> str:
    return table(["setting", "value"], [[str(key), str(value)] for key, value in settings.items()])


def _family(rows: Sequence[Row]) -> str:
    family = rows[0].family
    distances = {"l2": ["l2"], "linf": ["linf", "l2"], "l0": ["l0", "l2"]}[family.norm]
    head = [
        "implementation",
        "success",
        *(f"mean {TITLES[name]}" for name in distances),
        "margin",
        "forwards",
        "backwards",
    ]
    head += ["seconds", "build", "engine/theirs", "exact/theirs", "distance", "faults"]
    body = [_line(row, rows, distances) for row in rows]
    return f"## {family.title} ({rows[0].n} images)\n\n{table(head, body)}"


def _line(row: Row, rows: Sequence[Row], distances: Sequence[str]) -> list[str]:
    held = record(row, rows)
    if row.error:
        return [row.entry.label, *[""] * (len(distances) + 9), f"**error**: {row.error}"]
    ratios = [
        number(float(held[name] or "nan")) for name in ("engine_ratio", "exact_ratio", "distance_ratio")
    ]
    return [
        row.entry.label,
        f"{100 * held['success']:.1f} %",
        *(number(held[name], 4) for name in distances),
        number(held["confidence"]),
        number(row.forwards, 4),
        number(row.backwards, 4),
        number(row.time),
        number(row.build_seconds),
        *ratios,
        held["faults"] or "none",
    ]


def _summary(lines: Sequence[Mapping[str, Any]]) -> str:
    head = [
        "family",
        "ours",
        "among peers with",
        "fastest peer",
        "time, ours/theirs",
        "distance, ours/theirs",
    ]
    body = [
        [str(line[key]) for key in ("family", "ours", "rival", "fastest peer")]
        + [number(line["time ratio"]), number(line["distance ratio"], 4)]
        for line in lines
    ]
    return table(head, body)
