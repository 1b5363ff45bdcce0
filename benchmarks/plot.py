"""Measured rows as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import figures
from benchmarks.measure import Row
from benchmarks.render import number

OURS, SOUND, FAULTY = "#1b6ca8", "#8c8c8c", "#d9a679"


def draw(rows: Sequence[Row], path: Path) -> None:
    """One panel a family: milliseconds an image, with the mean distance beside each bar; PNG."""
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row.family.key)]
    held = [[row for row in group if row.seconds and not row.error] for group in groups]
    held = [group for group in held if group]
    figure = Figure(figsize=(9, 1.0 + sum(0.28 * len(group) + 0.75 for group in held)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(held), 1, squeeze=False, height_ratios=[len(group) + 1 for group in held])
    for axis, group in zip(axes[:, 0], held, strict=True):
        _panel(axis, group)
    figure.suptitle("Milliseconds an image, one run (blue: ours; brown: with faults)", fontsize=10)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _panel(axis: object, group: Sequence[Row]) -> None:
    family = group[0].family
    name = "linf" if family.norm == "linf" and family.eps is None else "l2"
    times = [1000 * row.time / row.n for row in group]
    colours = [OURS if row.entry.path else FAULTY if row.faults else SOUND for row in group]
    axis.barh([row.entry.label for row in group], times, color=colours)  # type: ignore[attr-defined]
    axis.set_xlim(0, max(times) * 1.45)  # type: ignore[attr-defined]
    axis.invert_yaxis()  # type: ignore[attr-defined]
    axis.tick_params(labelsize=7)  # type: ignore[attr-defined]
    axis.set_title(family.title, fontsize=8, loc="left")  # type: ignore[attr-defined]
    for place, (row, time) in enumerate(zip(group, times, strict=True)):
        text = f"{time:.3g} ms, {100 * figures.success(row):.0f} %, {name} {number(figures.mean(row, name)) or 'none'}"
        axis.text(time + 0.01 * max(times), place, text, va="center", fontsize=6.5)  # type: ignore[attr-defined]
