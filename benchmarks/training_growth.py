"""How a training step's cost grows with the data, the classes, the images' side and the batch."""

from __future__ import annotations

import contextlib
import csv
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.training_cases import Case
from benchmarks.training_ways import BARE, Over, bare, now, ours

#: What each axis runs over; everything else stays at its default.
AXES: dict[str, tuple[int, ...]] = {
    "images": (2000, 10000, 50000),
    "classes": (2, 10, 100, 1000),
    "side": (16, 32, 64),
    "batch": (16, 64, 256),
}
#: Steps before those that are measured: the first ones set up what later ones find ready.
WARM = 2


def points(models: tuple[str, ...] = ("resnet8",)) -> Iterator[tuple[str, Case]]:
    """All settings, axis by axis, for CE and PDM."""
    for model in models:
        for defense in ("ce", "pdm"):
            for axis, values in AXES.items():
                for value in values:
                    yield axis, replace(Case("cifar10", model, defense), **{axis: value})  # type: ignore[arg-type]


def seconds(train: Callable[[Callable[..., None]], object], steps: int, clock: str) -> float:
    """Median seconds of a step of a training, which gets what it shall call after each."""
    marks: list[float] = []

    def step(done: int = 1, **_: Any) -> None:
        if not done:
            return
        marks.append(now(clock))
        if len(marks) > WARM + steps:
            raise Over

    with contextlib.suppress(Over):
        train(step)
    return median(b - a for a, b in zip(marks[WARM:], marks[WARM + 1 :], strict=False))


def measure(case: Case, steps: int, clock: str) -> dict[str, float]:
    """Milliseconds an image of our training, and of the faster bare passes."""
    with tempfile.TemporaryDirectory() as folder:
        own = seconds(lambda step: ours(case, None, step, Path(folder)), steps, clock)
    passes = [
        seconds(lambda step, last=layout == BARE[1]: bare(case, None, last, step), steps, clock)  # type: ignore[misc]
        for layout in BARE
    ]
    return {"ours ms": 1000 * own / case.seen, "bare ms": 1000 * min(passes) / case.seen}


def write_csv(lines: list[dict[str, Any]], path: Path) -> None:
    """One line a point."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """One panel an axis: milliseconds an image, both logarithmic; solid: ours, dashed: forward and backward alone."""
    axes = list(dict.fromkeys(line["axis"] for line in lines))
    figure = Figure(figsize=(3.4 * len(axes), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, panel in zip(axes, figure.subplots(1, len(axes), squeeze=False, sharey=True)[0], strict=True):
        for number, defense in enumerate(("ce", "pdm")):
            mine = [line for line in lines if (line["axis"], line["defense"]) == (axis, defense)]
            values = [line[axis] for line in mine]
            for way, style in (("ours", "-"), ("bare", "--")):
                label = f"{defense.upper()}, {way}"
                panel.loglog(
                    values, [v[f"{way} ms"] for v in mine], style, marker=".", color=f"C{number}", label=label
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
