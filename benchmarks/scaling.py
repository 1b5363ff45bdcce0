"""``python -m benchmarks.scaling``: how the cost of our attacks grows with what they are given."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

import attacks
from attacks import BIM, FGSM, JSMA, Attack, CarliniWagner
from benchmarks.machine import CLOCKS, settings, threads
from benchmarks.models import small_resnet

EPILOG = """\
examples:
  python -m benchmarks.scaling
  python -m benchmarks.scaling --axes images,size --rounds 5 --out results/benchmarks/scaling
"""


@dataclass(frozen=True)
class Point:
    """One measured setting: images, their side in pixels, classes, iterations."""

    images: int = 16
    size: int = 16
    classes: int = 10
    iterations: int = 10


#: What each axis runs over; everything else stays at its default.
AXES: dict[str, tuple[int, ...]] = {
    "images": (1, 4, 16, 64),
    "size": (8, 16, 32),
    "classes": (2, 10, 100, 1000),
    "iterations": (5, 10, 20, 40),
}


def made(name: str, iterations: int) -> Attack:
    """The attack with so many iterations; C&W with three searches and none given up early."""
    if name == "FGSM":
        return FGSM(eps=0.1)
    if name == "BIM":
        return BIM(eps=0.1, iterations=iterations)
    if name == "C&W":
        return CarliniWagner(max_iterations=iterations, binary_search_steps=3, lr=0.1, abort_early=False)
    return JSMA(theta=1.0, max_steps=iterations)


NAMES = ("FGSM", "BIM", "C&W", "JSMA")


def points(axes: Sequence[str]) -> Iterator[tuple[str, Point]]:
    """All settings, axis by axis."""
    for axis in axes:
        for value in AXES[axis]:
            yield axis, Point(**{axis: value})


def subject(point: Point, seed: int) -> tuple[torch.nn.Module, Tensor, Tensor]:
    """An untrained ResNet-8, random images and the classes it predicts: what a pass costs needs no training."""
    torch.manual_seed(seed)
    model = small_resnet(num_classes=point.classes).eval().requires_grad_(False)
    x = torch.rand(point.images, 1, point.size, point.size)
    with torch.no_grad():
        return model, x, model(x).argmax(dim=1)


def measure(axes: Sequence[str], rounds: int, clock: str, seed: int) -> list[dict[str, Any]]:
    """One line for each attack, path and setting; the fastest of the rounds, which go over all attacks in turns."""
    lines = []
    for axis, point in points(axes):
        model, x, y = subject(point, seed)
        targets = {"engine": attacks.prepare(model, example=x), "exact": model}
        ways = [(name, path) for name in NAMES for path in targets]
        best = dict.fromkeys(ways, float("inf"))
        passes = dict.fromkeys(ways, 0.0)
        for _ in range(rounds + 1):
            for name, path in ways:
                attack = made(name, point.iterations)
                started = CLOCKS[clock]()
                result = attack(targets[path], x, y)
                best[name, path] = min(best[name, path], CLOCKS[clock]() - started)
                passes[name, path] = float(result.passes.double().mean())
        for name, path in ways:
            line = {"axis": axis, "attack": name, "path": path, **asdict(point)}
            lines.append(line | {"seconds": best[name, path], "passes": passes[name, path]})
        print(f"... {axis} {getattr(point, axis)}", file=sys.stderr, flush=True)
    return lines


def draw(lines: Sequence[dict[str, Any]], axes: Sequence[str], path: Path) -> None:
    """One panel an axis: seconds against it, both logarithmic; solid: engine, dashed: exact path."""
    figure = Figure(figsize=(3.4 * len(axes), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, panel in zip(axes, figure.subplots(1, len(axes), squeeze=False)[0], strict=True):
        for number, name in enumerate(NAMES):
            for way, style in (("engine", "-"), ("exact", "--")):
                mine = [v for v in lines if (v["axis"], v["attack"], v["path"]) == (axis, name, way)]
                values, seconds = [v[axis] for v in mine], [v["seconds"] for v in mine]
                label = name if way == "engine" else None
                panel.loglog(values, seconds, style, marker=".", color=f"C{number}", label=label)
        panel.set_xlabel("side in pixels" if axis == "size" else axis)
    figure.axes[0].set_ylabel("seconds")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--axes", default=",".join(AXES), help=f"default: {','.join(AXES)}")
    parser.add_argument(
        "--rounds", type=int, default=3, help="timed rounds, of which the fastest counts (default 3)"
    )
    parser.add_argument("--threads", type=int, default=1, help="default 1")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: beside other work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/scaling"), help="folder for the results"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for a wrong option."""
    options = parser().parse_args(arguments)
    axes = [axis for axis in options.axes.split(",") if axis]
    wrong = [axis for axis in axes if axis not in AXES]
    if wrong or not axes or options.rounds < 1 or options.threads < 1:
        hint = f"--axes takes {', '.join(AXES)}; --rounds and --threads at least 1"
        print(f"error: {hint}", file=sys.stderr)
        return 2
    with threads(options.threads):
        lines = measure(axes, options.rounds, options.clock, options.seed)
        told = settings(
            rounds=options.rounds, clock=options.clock, seed=options.seed, model="ResNet-8, untrained"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "settings.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    with (options.out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    draw(lines, axes, options.out / "plot.png")
    print(f"{options.out}: rows.csv, plot.png, settings.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
