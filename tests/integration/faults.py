"""Kill a study's processes again and again, then let it finish: nothing may be lost, wrong, or computed twice.

    python -m tests.integration.faults                  20 kills, at least 5 in training, crafting and publishing each
    python -m tests.integration.faults --each 1 --more 0 --keep /tmp/faults

The processes are killed from outside, by SIGKILL, with nothing of the project changed. Which of them does what is read
from the store: a lease names its holder, and what is being published lies in ``.partial`` with its manifest. A kill
counts where what the process left proves that it was in the middle.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pdm_lightning.report import read_csv
from pdm_lightning.store import Store
from tests.integration.studies import command, differences, in_one_process

PHASES = ("training", "crafting", "publishing")
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
LARGE = ("budget.images.cheap=300", "budget.images.medium=100", "budget.images.heavy=50")
"""More images, for many kills: the study must not be finished before they are done."""


@dataclass
class Log:
    """What was done, and what was seen in the store.

    Attributes
    ----------
    kills : Counter
        Proven kills by phase.
    lines : list of str
    published : dict of str to str
        By ``kind/key``, when the manifest says that it was made: it may never change.
    again : list of str
        Artifacts that were made a second time.
    """

    kills: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    published: dict[str, str] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)

    def look(self, root: Path) -> None:
        """Note what is published."""
        for path in root.glob("[a-z]*/*/manifest.json"):
            name, made = f"{path.parts[-3]}/{path.parts[-2]}", json.loads(path.read_text())["created"]
            if self.published.setdefault(name, made) != made:
                self.again.append(name)


def run_disturbed(
    study: tuple[str, ...], output: Path, wanted: dict[str, int], log: Log, draws: random.Random
) -> int:
    """One run of the study, whose processes are killed where a phase still wants it; its exit status."""
    words = command(*study, f"paths.output={output}", "hydra/launcher=local", "hydra.launcher.processes=2")
    with (output / "runs.log").open("a") as file:
        parent = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        spared = 0.0
        while parent.poll() is None:
            open_phases = [phase for phase in PHASES if log.kills[phase] < wanted[phase]]
            if not open_phases:
                return parent.wait()
            if time.monotonic() >= spared and _strike(output / "store", open_phases, log, draws, parent.pid):
                spared = time.monotonic() + draws.uniform(0.2, 2.0)
            time.sleep(0.0002)
    return parent.returncode


def _strike(root: Path, open_phases: list[str], log: Log, draws: random.Random, parent: int) -> bool:
    """Kill the holder of a lease, or the study's own process, if one of the phases is seen; whether one was."""
    if "publishing" in open_phases:
        for partial in _being_published(root):
            if _kill(root, partial, "publishing", log, parent, draws):
                return True
    if open_phases == ["publishing"] or draws.random() > 0.002:
        return False
    found = sorted((root / ".partial").glob("*-*[0-9a-f]"))
    draws.shuffle(found)
    for partial in found:
        phase = {"train": "training", "craft": "crafting"}.get(partial.name.split("-")[0], "")
        if phase in open_phases and _begun(partial) and _kill(root, partial, phase, log, parent, draws):
            return True
    return False


def _being_published(root: Path) -> Iterator[Path]:
    try:
        for entry in os.scandir(root / ".partial"):
            if os.path.exists(f"{entry.path}/manifest.json"):
                yield Path(entry.path)
    except FileNotFoundError:
        return


def _begun(partial: Path) -> bool:
    """Whether there is something to lose: a checkpoint, or a finished batch."""
    return (partial / "checkpoint" / "last.ckpt").exists() or any(partial.glob("batches/*.safetensors"))


def _kill(root: Path, partial: Path, phase: str, log: Log, parent: int, draws: random.Random) -> bool:
    lease = root / ".locks" / f"{partial.name}.json"
    try:
        pid = json.loads(lease.read_text())["pid"]
    except (OSError, ValueError):
        return False
    if not _alive(pid):  # of an earlier kill: nobody has taken the lease over yet
        return False
    whole = draws.random() < 0.25  # the command itself: its workers have to end with it
    os.kill(parent if whole else pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (_alive(pid) or (whole and _alive(parent))) and time.monotonic() < deadline:
        time.sleep(0.001)
    kind, _, key = partial.name.partition("-")
    proven = lease.exists() and partial.is_dir() and not (root / kind / key).exists()
    if phase != "publishing":
        proven = proven and not (partial / "manifest.json").exists()
    log.kills[phase] += proven
    left = sorted(str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file())
    log.say(
        f"SIGKILL {'the command' if whole else 'a worker'} in {phase} of {partial.name}"
        f" ({'proven' if proven else 'came too late'}; left: {', '.join(left) or 'nothing'})"
    )
    return True


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def disturb(study: tuple[str, ...], output: Path, each: int, more: int, seed: int) -> tuple[Log, int]:
    """Run the study until all kills are done, and then once more; the exit status of that run."""
    output.mkdir(parents=True, exist_ok=True)
    log, draws = Log(), random.Random(seed)
    wanted = dict.fromkeys(PHASES, each)
    while sum(log.kills.values()) < 3 * each + more:
        if all(log.kills[phase] >= wanted[phase] for phase in PHASES):
            wanted[draws.choice(PHASES[1:])] += 1
        status = run_disturbed(study, output, wanted, log, draws)
        log.look(output / "store")
        log.say(f"the run ended with {status}; kills so far: {dict(log.kills)}")
        if status == 0 and sum(log.kills.values()) < 3 * each + more:
            raise SystemExit(
                "the study was finished before all kills were done: ask for fewer, or a larger study"
            )
    with (output / "runs.log").open("a") as file:
        status = subprocess.run(
            command(*study, f"paths.output={output}", "hydra/launcher=local"), stdout=file, stderr=file
        ).returncode
    log.look(output / "store")
    return log, status


def faults(
    folder: Path, each: int, more: int, seed: int = 0, study: tuple[str, ...] = STUDY
) -> tuple[Log, list[str]]:
    """Disturb a study, run it undisturbed, and return what was done and everything that is wrong."""
    log, status = disturb(study, folder / "disturbed", each, more, seed)
    if status:
        return log, [f"the last run ended with {status}: see {folder / 'disturbed' / 'runs.log'}"]
    wrong = in_one_process(folder / "quiet", study)
    store = Store(folder / "disturbed" / "store")
    for artifact in list(store.list()):
        store.open(artifact.kind, artifact.key)  # checks the hash of every file
    rows = read_csv(folder / "disturbed" / "report" / "faults" / "results.csv")
    cells = {(row.defense, row.attack) for row in rows if row.metric == "auc_all"}
    if len(cells) != 24:
        wrong.append(f"{len(cells)} of 24 cells")
    wrong += [f"made twice: {name}" for name in log.again]
    return log, wrong + differences(folder / "disturbed", folder / "quiet", "faults")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=5, help="kills in each phase, at least")
    parser.add_argument("--more", type=int, default=5, help="further kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to work in, which stays")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        start, study = time.monotonic(), (*STUDY, *(LARGE if asked.each + asked.more > 3 else ()))
        log, wrong = faults(asked.keep or Path(scratch), asked.each, asked.more, asked.seed, study)
    print(f"{sum(log.kills.values())} kills: {dict(log.kills)}; {len(log.published)} artifacts")
    print(
        f"{time.monotonic() - start:.0f} s; " + ("; ".join(wrong) or "everything as in the undisturbed run")
    )
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
