"""Kill a study's processes again and again, then let it finish: nothing may be lost, wrong, or computed twice.

    python -m tests.integration.faults                  20 kills, at least 5 in training, crafting and publishing each
    python -m tests.integration.faults --each 1 --more 0 --keep /tmp/faults

Two commands work on the same study at once, the one with two processes, the other with one, so that they want the same
artifacts. Processes are killed from outside, by SIGKILL, with nothing of the project changed. Which of them does what
is read from the store (`tests.integration.strikes`), and so is whether anybody works on what was published before.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pdm_lightning.report import read_csv
from pdm_lightning.store import Store
from tests.integration.strikes import PHASES, PUBLISHING, Log, Watcher
from tests.integration.studies import command, differences, in_one_process

STUDY = (
    "-m",
    "defense=ce,rce,pdm",
    "attack=fgsm_005,fgsm_010,bim_005,bim_010,bim_converged,cw,jsma,min_norm_l2",
    "name=faults",
    "data=digits",
    "model=resnet8",
    "budget=smoke",
    "budget.train.steps=150",
    "budget.train.segment=25",
    "budget.train.batch_size=64",
    "budget.images.cheap=100",
    "budget.images.medium=40",
    "budget.images.heavy=20",
    "craft.batch_size=10",
    "evaluate.bootstrap=200",
    "evaluate.min_n=5",
    "card.run=none",
    "trainer.threads=1",  # sums in another order train another model
    "report.tables=[accuracy,detection]",
    "report.figures=[]",
)
"""24 cells of three trainings."""
LARGE = (
    "budget.train.steps=400",
    "budget.images.cheap=300",
    "budget.images.medium=100",
    "budget.images.heavy=50",
)
"""More steps and images, for many kills: the study must not be finished before they are done."""


def quotas(each: int) -> dict[str, int]:
    """Kills that are wanted at least, by phase: `each` in training, in crafting, and in the steps of publishing."""
    steps = {step: (each + 2 - number) // 3 for number, step in enumerate(PUBLISHING)}
    return {"training": each, "crafting": each} | steps


def run_disturbed(
    words: Sequence[str], output: Path, wanted: dict[str, int], log: Log, draws: random.Random
) -> bool:
    """Two commands at once, whose processes are killed while a phase still wants it; whether one ended well."""
    words = command(*words, f"paths.output={output}", "hydra/launcher=local")
    watcher = Watcher(output / "store", log, draws)
    with (output / "runs.log").open("a") as file:
        running = [
            subprocess.Popen(
                [*words, f"hydra.launcher.processes={count}"],
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            for count in (2, 1)
        ]
        try:
            _disturb(running, watcher, wanted, draws)
        finally:
            for process in running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    log.failed |= {path.stem for path in (output / "logs" / "failed").glob("*.json")}
    return any(process.returncode == 0 for process in running)


def _disturb(
    running: list[subprocess.Popen[bytes]], watcher: Watcher, wanted: dict[str, int], draws: random.Random
) -> None:
    spared, listed = 0.0, 0.0
    while any(process.poll() is None for process in running):
        still = [phase for phase in PHASES if watcher.log.kills[phase] < wanted.get(phase, 0)]
        if time.monotonic() >= listed:
            watcher.published()
            listed = time.monotonic() + 0.1
        if not still or time.monotonic() < spared:
            watcher.look()
        elif watcher.strike(still, [process.pid for process in running]):
            spared = time.monotonic() + draws.uniform(0.1, 1.0)
        time.sleep(0.0002 if still else 0.01)
    watcher.published()


def disturb(study: Sequence[str], output: Path, each: int, more: int, seed: int) -> tuple[Log, bool]:
    """Run the study until all kills are done, and then once more; whether that run ended well."""
    log, draws = Log(), random.Random(seed)
    wanted = quotas(each)
    for phase in draws.choices(("training", "crafting"), k=more):
        wanted[phase] += 1
    while any(log.kills[phase] < wanted[phase] for phase in PHASES):
        well = run_disturbed(study, output, wanted, log, draws)
        log.say(f"the commands have ended; kills so far: {dict(log.kills)}")
        if well and any(log.kills[phase] < wanted[phase] for phase in PHASES):
            raise SystemExit(
                "the study was finished before all kills were done: ask for fewer, or a larger study"
            )
    return log, run_disturbed(study, output, {}, log, draws)


def faults(
    folder: Path, each: int, more: int, seed: int = 0, study: Sequence[str] = STUDY
) -> tuple[Log, list[str]]:
    """Run a study undisturbed, disturb it elsewhere; return what was done and everything that is wrong."""
    quiet, output = folder / "quiet", folder / "disturbed"
    output.mkdir(parents=True)
    wrong = in_one_process(quiet, study)
    # each output folder measures how gradient passes run fastest; ways differ by rounding, and results have to be equal
    shutil.copytree(quiet / "passes", output / "passes")
    log, well = disturb(study, output, each, more, seed)
    if not well:
        wrong.append(f"the last run failed: see {output / 'runs.log'}")
        return log, wrong
    store = Store(output / "store")
    for artifact in list(store.list()):
        store.open(artifact.kind, artifact.key)  # checks the hash of every file
    rows = read_csv(output / "report" / "faults" / "results.csv")
    cells = {(row.defense, row.attack) for row in rows if row.metric == "auc_all"}
    if len(cells) != 24:
        wrong.append(f"{len(cells)} of 24 cells")
    wrong += [f"worked on after it was published: {name}" for name in sorted(log.again)]
    wrong += [f"failed, other than by being killed: {name}" for name in sorted(log.failed)]
    return log, wrong + differences(output, quiet, "faults", exact=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=5, help="kills in each phase, at least")
    parser.add_argument("--more", type=int, default=5, help="further kills, in training or crafting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to work in, which stays")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        start, study = time.monotonic(), (*STUDY, *(LARGE if asked.each + asked.more > 3 else ()))
        log, wrong = faults(asked.keep or Path(scratch), asked.each, asked.more, asked.seed, study)
    print(
        f"{sum(log.kills.values())} kills: {dict(log.kills)}; {len(log.published)} artifacts seen in their place"
    )
    print(
        f"{time.monotonic() - start:.0f} s; " + ("; ".join(wrong) or "everything as in the undisturbed run")
    )
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
