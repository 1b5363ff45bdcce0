"""How a training step's cost grows with the data, the classes, the images' side and the batch."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.training_cases import Case

#: What each axis runs over; everything else stays at its default.
AXES: dict[str, tuple[int, ...]] = {
    "images": (2000, 10000, 50000),
    "classes": (2, 10, 100, 1000),
    "side": (16, 32, 64),
    "batch": (16, 64, 256),
}
#: Rounds at most, and least seconds of a turn at most: there are many points.
ROUNDS, SECONDS = 5, 0.5


def points() -> Iterator[tuple[str, Case]]:
    """All settings, axis by axis, for CE and PDM; a case may lie on several axes."""
    for defense in ("ce", "pdm"):
        usual = Case("cifar10", "resnet8", defense, side=32)
        for axis, values in AXES.items():
            for value in values:
                yield axis, replace(usual, **{axis: value})  # type: ignore[arg-type]


def write_csv(lines: list[dict[str, Any]], path: Path) -> None:
    """One line a point."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """One panel an axis: milliseconds an image, lowest to highest; solid: ours, dashed: forward and backward alone."""
    axes = list(dict.fromkeys(line["axis"] for line in lines))
    figure = Figure(figsize=(3.4 * len(axes), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, panel in zip(axes, figure.subplots(1, len(axes), squeeze=False, sharey=True)[0], strict=True):
        panel.loglog()
        for number, defense in enumerate(("ce", "pdm")):
            mine = [line for line in lines if (line["axis"], line["defense"]) == (axis, defense)]
            for way, style in (("ours", "-"), ("bare", "--")):
                middle, low, high = (
                    np.array([line[f"{way} ms{end}"] for line in mine]) for end in ("", " lowest", " highest")
                )
                panel.errorbar(
                    [line[axis] for line in mine],
                    middle,
                    yerr=(middle - low, high - middle),
                    linestyle=style,
                    marker=".",
                    capsize=2,
                    color=f"C{number}",
                    label=f"{defense.upper()}, {way}",
                )
        values = sorted({line[axis] for line in lines if line["axis"] == axis})
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.minorticks_off()
        panel.set_xlabel(
            {"side": "side in pixels", "images": "training images", "batch": "anchors a step"}.get(axis, axis)
        )
    for panel in figure.axes:
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
    figure.axes[0].set_ylabel("ms an image")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=130, metadata={"Software": None})
