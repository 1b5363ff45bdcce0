"""``python -m benchmarks.training``: our training beside its bare passes, and beside a training as usually written."""

from __future__ import annotations

import argparse
import contextlib
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
from benchmarks import training_figures as figures
from benchmarks import training_growth as growth
from benchmarks import training_render as render
from benchmarks.machine import CLOCKS, settings, threads, version, without_paths
from benchmarks.training_cases import CASES, Case, available, spec
from benchmarks.training_ways import BARE, OURS, USUAL, WARM, Runner, Turn, possible
from pdm_lightning.durable import write_text

EPILOG = """\
examples:
  python -m benchmarks.training
  python -m benchmarks.training --quick --threads 1 --clock cpu --out /tmp/training
  python -m benchmarks.training --cases "cifar10 resnet20,mnist resnet8" --rounds 15 --no-growth

A stopped command goes on where it was when it is typed again; --fresh measures everything anew.
"""
KEPT = "measured.json"
#: Where results go by default: all of them, and those of a part.
WHOLE, PART = Path("results/benchmarks/training"), Path("outputs/benchmarks/training")


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
    made.add_argument("--quick", action="store_true", help="two rounds of half a second, no ResNet-56")
    made.add_argument("--no-growth", action="store_true", help="leave the plot out")
    made.add_argument("--fresh", action="store_true", help="forget what was measured")
    made.add_argument(
        "--out",
        type=Path,
        help=f"folder for the results (default: {WHOLE}; with --quick, --cases or --no-growth {PART})",
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
    if options.out is None:
        options.out = PART if options.quick or options.cases or options.no_growth else WHOLE
    root = options.root or (Path(os.environ["PDM_DATA_ROOT"]) if os.environ.get("PDM_DATA_ROOT") else None)
    with threads(options.threads):
        try:
            roots = {name: available(name, root) for name in {case.data for case in cases}}
            if options.root is not None and None in roots.values():
                missing = ", ".join(sorted(name for name, found in roots.items() if found is None))
                print(f"{missing}: not under --root; noise of their shape is taken", file=sys.stderr)
            return run(options, cases, roots)
        except (RuntimeError, OSError) as error:
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
    lines: list[dict[str, Any]] = []
    grown: list[dict[str, Any]] = []
    with ExitStack() as stack:
        ways = Ways(stack, options)
        for case in cases:
            lines.append(kept.once("case", case, partial(ways.line, case, roots[case.data])))
        for axis, case in () if options.no_growth else growth.points():
            point = kept.once("growth", case, partial(ways.point, case))
            grown.append({"axis": axis, "name": case.name, **case.as_dict(), **point})
    for line, case in zip(lines, cases, strict=True):
        measure = partial(ends.measure, case, roots[case.data], options.threads, options.clock, options.out)
        line |= ends.added(case, line[f"{OURS} images/s"], kept.once("end", case, measure))
    if grown:
        growth.write_csv(grown, options.out / "growth.csv")
        growth.draw(grown, options.out / "plot.png")
    else:  # an earlier one would be another measurement's
        for name in ("growth.csv", "plot.png"):
            (options.out / name).unlink(missing_ok=True)
    told |= {"date": kept.dates(), "load before": kept.load}
    print(render.write(lines, grown, told, options.out))
    (options.out / "settings.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(bool(figures.short(lines, grown)))


def code() -> str:
    """A hash of what is measured, but for its configuration, and of what measures it."""
    root = Path(__file__).parents[1]
    files = [*(root / "pdm_lightning").rglob("*.py"), *(root / "benchmarks").glob("training*.py")]
    return sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:12]


class Ways:
    """All ways, in processes that begin when they are needed and end with the stack."""

    def __init__(self, stack: ExitStack, options: argparse.Namespace) -> None:
        self.stack, self.options, self.runners = stack, options, dict[str, Runner]()

    def line(self, case: Case, root: str | None) -> dict[str, Any]:
        """Figures of a case: all ways in turns."""
        turns = self.turns(case, root, possible(), self.options.rounds, self.options.seconds)
        return figures.record(case.as_dict(), case.name, case.seen, turns)

    def point(self, case: Case) -> dict[str, Any]:
        """Figures of a point of the growth: ours and the bare passes in turns, on noise."""
        rounds = min(self.options.rounds, growth.ROUNDS)
        seconds = min(self.options.seconds, growth.SECONDS)
        return figures.costs(case.seen, self.turns(case, None, (OURS, *BARE), rounds, seconds))

    def turns(
        self, case: Case, root: str | None, ways: Sequence[str], rounds: int, seconds: float
    ) -> dict[str, list[Turn]]:
        """Turns of each way, round by round."""
        for way in ways:
            if way not in self.runners:
                runner = Runner(way, self.options.threads, self.options.clock)
                self.runners[way] = self.stack.enter_context(closing(runner))
        runners = {way: self.runners[way] for way in ways}
        turns: dict[str, list[Turn]] = {way: [] for way in ways}
        for runner in runners.values():
            runner.begin(case, root)
        for round_ in range(rounds):
            for way, runner in runners.items():
                # a first turn sets up what later ones find ready; workers begin every turn with loaded batches
                warm = WARM if way == USUAL[1] else (2 if round_ == 0 else 1)
                turns[way].append(runner.turn(seconds, warm))
            print(f"{case.name}: round {round_ + 1} of {rounds}", file=sys.stderr, flush=True)
        for runner in runners.values():
            runner.end()
        return turns


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
        self.found: dict[str, Any] = {}
        self.load = told.get("load before")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RuntimeError(f"--out: {path.parent.name} cannot be a folder ({error.strerror})") from error
        # another's file, or a damaged one, counts as none
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if not fresh and content["under"] == self.under:
                self.found, self.load = dict(content["found"]), content["load"]
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
