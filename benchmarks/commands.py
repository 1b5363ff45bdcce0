"""How long ``pdml plan`` of a large sweep and ``pdml store ls`` of a large store take.

    python -m benchmarks.commands                           2,160 cells, 10,000 artifacts
    python -m benchmarks.commands --artifacts 1000 --repeat 5

From the start of each command's process to the end of its output, on one core where the system lets one be chosen. CPU
time leaves out what other programs take meanwhile. The artifacts are those of the plan and of further seeds, with files
of a few bytes: only their number matters.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from benchmarks.machine import processor
from pdm_lightning import durable
from pdm_lightning.stages.builders import source
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.graph import Node
from pdm_lightning.study.plan import make_plan

#: 2 models x 8 defences x 15 attacks x 3 threat models x 3 seeds = 2,160 cells.
SWEEP = (
    "-m",
    "model=resnet8,resnet20",
    "defense=ce,rce,siamese,rvl,siamese_rvl,rce_siamese,rce_rvl,pdm",
    "attack=fgsm_005,fgsm_010,bim_005,bim_010,cw,cw_hc,jsma,cw_converged,cw_hc_matched,fgsm,bim,bim_converged,"
    "square_logits,min_norm_l2,min_norm_linf",
    "threat=gray_box,white_box,black_box",
)


def words(output: Path, first_seed: int = 0) -> list[str]:
    """The sweep as it is typed."""
    seeds = ",".join(str(first_seed + number) for number in range(3))
    return [*SWEEP, f"seed={seeds}", f"paths.output={output}"]


def nodes(output: Path) -> Iterator[Node]:
    """The sweep's nodes, then those of further seeds, without end."""
    for first in count(0, 3):
        yield from make_plan(ask("plan", words(output, first)))


def fill(output: Path, artifacts: int) -> None:
    """Put so many artifacts into the store of an output folder."""
    store, sync = Store(output / "store"), durable.sync
    durable.sync = lambda path: None  # a store that nobody needs tomorrow
    try:
        for node in islice(nodes(output), artifacts):

            def build(folder: Path, node: Node = node) -> None:
                (folder / "data.json").write_text(node.title)
                (folder / "arrays.bin").write_bytes(b"\0" * 64)

            store.get(node.kind, node.spec, node.parent_keys, build, source=source(node))
    finally:
        durable.sync = sync


def timed(arguments: Sequence[str]) -> tuple[float, float, int]:
    """Run ``pdml`` with arguments; seconds by the clock, CPU seconds, and lines of output."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pdm_lightning", *arguments],
        stdout=subprocess.PIPE,
        preexec_fn=_one_core,
        check=True,
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout.count(b"\n")


def _one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commands",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--artifacts", type=int, default=10_000, help="in the store that is listed (default: 10000)"
    )
    parser.add_argument(
        "--repeat", type=int, default=3, help="times that each command runs; the fastest counts"
    )
    asked = parser.parse_args(arguments)
    print(f"{processor()}, load {os.getloadavg()[0]:.1f}")
    print(f"{'command':48}{'wall s':>8}{'CPU s':>8}{'lines':>8}")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "outputs"
        plan = ["plan", *words(output)]
        _row("plan, nothing stored, no pass measured yet", [timed(plan)])
        _row("plan, nothing stored", [timed(plan) for _ in range(asked.repeat)])
        fill(output, asked.artifacts)
        _row(f"plan, {asked.artifacts:,} artifacts stored", [timed(plan) for _ in range(asked.repeat)])
        for what in (["ls"], ["ls", "--json"], ["gc", "--older-than", "0"], ["verify"]):
            command = ["store", *what, "--output", str(output)]
            _row(
                f"store {' '.join(what)}, {asked.artifacts:,} artifacts",
                [timed(command) for _ in range(asked.repeat)],
            )


def _row(what: str, times: Sequence[tuple[float, float, int]]) -> None:
    wall, cpu = (min(column) for column in list(zip(*times, strict=True))[:2])
    print(f"{what:48}{wall:8.2f}{cpu:8.2f}{times[0][2]:8,}", flush=True)


if __name__ == "__main__":
    main()
