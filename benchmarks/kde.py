"""``python -m benchmarks.kde``: our kernel density score beside scikit-learn's KernelDensity."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity
from torch import Tensor

from benchmarks.machine import CLOCKS, settings, threads
from benchmarks.render import number, table
from detection import KDE

EPILOG = """\
examples:
  python -m benchmarks.kde
  python -m benchmarks.kde --classes 100 --kernels 500 --dim 64 --n 1000 --rounds 9 --out results/benchmarks/kde100
"""
#: Largest difference of log densities that counts as equal, relative to their size.
EQUAL = 1e-9


@dataclass(frozen=True)
class Problem:
    """Kernels of each class (K, M, d), queries (n, d), their classes (n,), and the bandwidth; float64."""

    kernels: Tensor
    queries: Tensor
    classes: Tensor
    bandwidth: float


@dataclass
class Timed:
    """One way to the log densities (n,): seconds of each round, and the values."""

    name: str
    call: Callable[[], NDArray[np.float64]]
    seconds: list[float] = field(default_factory=list)
    values: NDArray[np.float64] | None = None


def problem(classes: int, kernels: int, dim: int, n: int, seed: int) -> Problem:
    """Classes on random centres, with queries drawn as the kernels are; bandwidth of a typical neighbour distance."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    centres = 3 * draw(classes, 1, dim)
    labels = torch.arange(n) % classes
    queries = centres[labels, 0] + draw(n, dim)
    return Problem(centres + draw(classes, kernels, dim), queries, labels, 0.5 * dim**0.5)


def exact(held: Problem) -> NDArray[np.float64]:
    """Log densities (n,) from the definition, differences squared and summed, without any expansion."""
    dim, values = held.queries.shape[1], np.empty(len(held.queries))
    for row, (query, label) in enumerate(zip(held.queries, held.classes.tolist(), strict=True)):
        squares = (held.kernels[label] - query).square().sum(dim=1).numpy()
        values[row] = logsumexp(-0.5 * squares / held.bandwidth**2) - np.log(len(squares))
    return values - 0.5 * dim * np.log(2 * np.pi * held.bandwidth**2)


def ways(held: Problem) -> list[Timed]:
    """Ours with and without the gradient, and scikit-learn's two trees."""
    ours = _ours(held)

    def values() -> NDArray[np.float64]:
        with torch.no_grad():
            return ours.log_density(held.queries, held.classes).numpy()

    def gradient() -> NDArray[np.float64]:
        leaf = held.queries.clone().requires_grad_()
        found = ours.log_density(leaf, held.classes)
        torch.autograd.grad(found.sum(), leaf)
        return found.detach().numpy()

    trees = [Timed(f"scikit-learn, {kind}", _tree(held, kind)) for kind in ("kd_tree", "ball_tree")]
    return [Timed("ours", values), Timed("ours, with gradient", gradient), *trees]


def measure(held: Problem, rounds: int, clock: Callable[[], float] = time.perf_counter) -> list[Timed]:
    """Time all ways in turns; a first round warms up."""
    found = ways(held)
    for round_ in range(rounds + 1):
        for way in found:
            started = clock()
            way.values = way.call()
            if round_:
                way.seconds.append(clock() - started)
    return found


def records(found: Sequence[Timed], truth: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Figures by way: fastest and median seconds, speed-up over each tree, largest relative error."""
    theirs = {way.name.split()[-1]: min(way.seconds) for way in found if way.name.startswith("scikit-learn")}
    lines = []
    for way in found:
        assert way.values is not None
        error = float(np.max(np.abs(way.values - truth) / np.maximum(1, np.abs(truth))))
        lines.append(
            {
                "way": way.name,
                "fastest seconds": min(way.seconds),
                "median seconds": float(np.median(way.seconds)),
                **{f"times {kind}": seconds / min(way.seconds) for kind, seconds in theirs.items()},
                "largest relative error": error,
                "equal": error <= EQUAL,
            }
        )
    return lines


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.kde",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, value, what in (
        ("classes", 10, "classes"),
        ("kernels", 1000, "kernels a class"),
        ("dim", 64, "dimensions of an embedding"),
        ("n", 1000, "queries"),
        ("rounds", 7, "timed rounds, of which the fastest counts"),
        ("threads", 1, "threads"),
        ("seed", 0, "seed of the problem"),
    ):
        made.add_argument(f"--{name}", type=int, default=value, help=f"{what} (default {value})")
    made.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: beside other work")
    made.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/kde"), help="folder for the results"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where ours differs from the definition, 2 for a wrong option."""
    options = parser().parse_args(arguments)
    sizes = {name: getattr(options, name) for name in ("classes", "kernels", "dim", "n", "rounds", "threads")}
    if min(sizes.values()) < 1:
        print("error: sizes, rounds and threads must be at least 1", file=sys.stderr)
        return 2
    with threads(options.threads):
        held = problem(options.classes, options.kernels, options.dim, options.n, options.seed)
        lines = records(measure(held, options.rounds, CLOCKS[options.clock]), exact(held))
        told = settings(**sizes, seed=options.seed, clock=options.clock)
    text = report(lines, told)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    (options.out / "settings.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    with (options.out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    print(text)
    return int(not all(line["equal"] for line in lines if line["way"].startswith("ours")))


def report(lines: Sequence[dict[str, Any]], told: dict[str, Any]) -> str:
    """The figures as Markdown."""
    body = [[number(v, 4) if isinstance(v, float) else str(v) for v in line.values()] for line in lines]
    head = table(["setting", "value"], [[str(key), str(value)] for key, value in told.items()])
    note = (
        "`times`: as fast as scikit-learn's trees, which give values and no gradient (kd_tree is its default).\n"
        f"`equal`: to the definition, summed over squared differences, within {EQUAL:g} of the value."
    )
    return f"# Kernel density\n\n{head}\n\n{table(list(lines[0]), body)}\n\n{note}\n"


def _ours(held: Problem) -> KDE:
    classes, count, dim = held.kernels.shape
    state = {
        "kernels": held.kernels.reshape(-1, dim),
        "classes": torch.arange(classes).repeat_interleave(count),
        "bandwidth": torch.tensor([held.bandwidth], dtype=torch.float64),
    }
    return KDE().load_state_dict(state)


def _tree(held: Problem, kind: str) -> Callable[[], NDArray[np.float64]]:
    fitted = [
        KernelDensity(bandwidth=held.bandwidth, algorithm=kind).fit(points) for points in held.kernels.numpy()
    ]
    queries, labels = held.queries.numpy(), held.classes.numpy()

    def values() -> NDArray[np.float64]:
        result = np.empty(len(queries))
        for label, estimator in enumerate(fitted):
            rows = labels == label
            if rows.any():
                result[rows] = estimator.score_samples(queries[rows])
        return result

    return values


if __name__ == "__main__":
    sys.exit(main())
