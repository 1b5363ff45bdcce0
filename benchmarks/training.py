"""``python -m benchmarks.training``: our training beside its bare passes, and beside a training as usually written."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks import training_ends as ends
from benchmarks import training_growth as growth
from benchmarks import training_render as render
from benchmarks.machine import CLOCKS, settings, threads, version, without_paths
from benchmarks.training_cases import CASES, Case, available, spec
from benchmarks.training_ways import USUAL, WARM, WAYS, Runner, Turn
from pdm_lightning.durable import write_text

EPILOG = """\
examples:
  python -m benchmarks.training
  python -m benchmarks.training --quick --threads 1 --clock cpu --out /tmp/training
  python -m benchmarks.training --cases "cifar10 resnet20,mnist resnet8" --rounds 15 --no-growth

A stopped command goes on where it was when it is typed again; --fresh measures everything anew.
"""
KEPT = "measured.json"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--cases", default="", help="parts of names, as 'mnist resnet8,cifar10' (default: all)")
    made.add_argument(
        "--root", type=Path, help="folder of torchvision's files (default: PDM_DATA_ROOT; else noise)"
    )
    made.add_argument("--rounds", type=int, default=9, help="turns of each way (default 9)")
    made.add_argument("--seconds", type=float, default=1.0, help="least length of a turn (default 1)")
    made.add_argument("--threads", type=int, default=2, help="default 2")
    made.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: beside other work")
    made.add_argument(
        "--quick", action="store_true", help="two rounds of half a second, no ResNet-56, three steps a point"
    )
    made.add_argument("--no-growth", action="store_true", help="leave the plot out")
    made.add_argument("--fresh", action="store_true", help="forget what was measured")
    made.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/training"), help="folder for the results"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where a case misses what was asked for, 2 for a wrong option."""
    options = parser().parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 2, 0.5
    cases = chosen(options.cases, options.quick)
    if not cases or min(options.rounds, options.threads) < 1 or options.seconds <= 0:
        known = ", ".join(case.name for case in CASES)
        print(
            f"error: --cases takes parts of {known}; --rounds, --threads, --seconds above 0", file=sys.stderr
        )
        return 2
    root = options.root or (Path(os.environ["PDM_DATA_ROOT"]) if os.environ.get("PDM_DATA_ROOT") else None)
    roots = {name: available(name, root) for name in {case.data for case in cases}}
    if options.root is not None and None in roots.values():
        missing = ", ".join(sorted(name for name, found in roots.items() if found is None))
        print(f"{missing}: not under --root; noise of their shape is taken", file=sys.stderr)
    with threads(options.threads):
        try:
            return run(options, cases, roots)
        except RuntimeError as error:
            print(f"error: {without_paths(str(error))}", file=sys.stderr)
            return 1


def chosen(parts: str, quick: bool) -> list[Case]:
    """The cases whose names hold one of the parts; nothing where a part fits none."""
    asked = [part.strip() for part in parts.split(",") if part.strip()]
    if any(not any(part in case.name for case in CASES) for part in asked):
        return []
    found = [case for case in CASES if not asked or any(part in case.name for part in asked)]
    return [case for case in found if asked or not quick or case.model != "resnet56"]


def run(options: argparse.Namespace, cases: Sequence[Case], roots: dict[str, str | None]) -> int:
    """Measure what is not yet measured, and write everything."""
    told = settings(
        rounds=options.rounds,
        seconds=options.seconds,
        clock=options.clock,
        code=code(),
        **{name: version(name) for name in ("torchvision", "pytorch-lightning")},
        images=", ".join(f"{name}: {'real' if root else 'noise'}" for name, root in sorted(roots.items())),
    )
    kept = Kept(options.out / KEPT, told, options.fresh)
    with ExitStack() as stack:
        ways = Ways(stack, options)
        lines = [kept.once("case", case, partial(ways.measured, case, roots[case.data])) for case in cases]
    for line, case in zip(lines, cases, strict=True):
        end = partial(ends.measure, case, roots[case.data], options.threads, options.clock, options.out)
        line |= kept.once("end", case, end)
        line |= ends.added(case, line)
    grown = []
    if not options.no_growth:
        steps = 3 if options.quick else 6
        for axis, case in growth.points():
            found = kept.once(f"growth {steps}", case, partial(growth.measure, case, steps, options.clock))
            grown.append({"axis": axis, **case.as_dict(), **found})
        growth.write_csv(grown, options.out / "growth.csv")
        growth.draw(grown, options.out / "plot.png")
    told |= {"date": kept.dates(), "load before": kept.load}
    print(render.write(lines, told, options.out, bool(grown)))
    (options.out / "settings.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(any(render.short(line) is not None for line in lines))


def code() -> str:
    """A hash of what is measured, but for its configuration, and of what measures it."""
    root = Path(__file__).parents[1]
    files = [*(root / "pdm_lightning").rglob("*.py"), *(root / "benchmarks").glob("training*.py")]
    return sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:12]


class Ways:
    """All ways, in processes that begin when they are needed and end with the stack."""

    def __init__(self, stack: ExitStack, options: argparse.Namespace) -> None:
        self.stack, self.options, self.runners = stack, options, dict[str, Runner]()

    def measured(self, case: Case, root: str | None) -> dict[str, Any]:
        """Figures of a case: all ways in turns."""
        if not self.runners:
            for way in WAYS:
                runner = Runner(way, self.options.threads, self.options.clock)
                self.runners[way] = self.stack.enter_context(closing(runner))
        turns: dict[str, list[Turn]] = {way: [] for way in WAYS}
        for runner in self.runners.values():
            runner.begin(case, root)
        for round_ in range(self.options.rounds):
            for way, runner in self.runners.items():
                # a first turn sets up what later ones find ready; workers begin every turn with loaded batches
                warm = WARM if way == USUAL[1] else (2 if round_ == 0 else 1)
                turns[way].append(runner.turn(self.options.seconds, warm))
            print(f"{case.name}: round {round_ + 1} of {self.options.rounds}", file=sys.stderr, flush=True)
        for runner in self.runners.values():
            runner.end()
        return render.record(case.as_dict(), case.name, case.seen, turns)


class Kept:
    """What was measured, and when, in a file, as long as the settings that figures depend on are the same.

    Parameters
    ----------
    path
        Where it is kept.
    told
        The settings.
    fresh
        Whether what is there is forgotten.

    Attributes
    ----------
    load
        Of the machine, before the first figure of them was measured.
    """

    def __init__(self, path: Path, told: dict[str, Any], fresh: bool) -> None:
        self.path = path
        self.under = {key: value for key, value in told.items() if key not in ("date", "load before")}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            content = {}
        same = not fresh and content.get("under") == self.under
        self.found: dict[str, Any] = content["found"] if same else {}
        self.load = content["load"] if same else told.get("load before")
        self.asked: list[str] = []

    def once(self, what: str, case: Case, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is kept of a case as it is planned today; else measured now, and kept."""
        plan = json.dumps(spec(case), sort_keys=True, default=str) + json.dumps(case.as_dict())
        name = f"{what} {case.name} {sha256(plan.encode()).hexdigest()[:12]}"
        if name not in self.found:
            measured = measure()
            self.found[name] = {"date": settings()["date"], "figures": measured}
            content = {"under": self.under, "load": self.load, "found": self.found}
            write_text(self.path, json.dumps(content) + "\n")
        self.asked.append(name)
        return dict(self.found[name]["figures"])

    def dates(self) -> str:
        """When what was asked for was measured: the first and the last date."""
        found = sorted({self.found[name]["date"] for name in self.asked})
        return " to ".join(dict.fromkeys((found[0], found[-1])))


if __name__ == "__main__":
    sys.exit(main())
