"""A sweep through a real Slurm of one node, which this script starts and stops; a job is requeued while it trains.

    apt install slurm-wlm munge; pip install 'pdm-lightning[slurm]'
    python -m tests.integration.slurm

Skips, saying so, where Slurm, munge or submitit is missing. Everything lies in a temporary folder: a Slurm that this
machine already has is not touched.
"""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pdm_lightning.launchers.local import cores
from tests.integration.studies import SWEEP, command, differences, in_one_process

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
CONF = """\
ClusterName=pdml
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MinJobAge=60
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What this script needs and does not find; empty where all is there."""
    programs = [name for name in NEEDED if shutil.which(name) is None]
    if programs:
        return f"no {', '.join(programs)} here: apt install slurm-wlm munge"
    if importlib.util.find_spec("submitit") is None:
        return "no submitit here: pip install 'pdm-lightning[slurm]'"
    return ""


@contextmanager
def one_node(folder: Path) -> Iterator[None]:
    """A Slurm of this machine alone, while the body runs."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    places = {"folder": folder, "host": socket.gethostname().partition(".")[0], "user": getpass.getuser()}
    conf = folder / "slurm.conf"
    ports = {"ctld_port": _free_port(), "slurmd_port": _free_port()}
    conf.write_text(CONF.format(**places, **ports, cpus=cores()))
    os.environ["SLURM_CONF"] = str(conf)
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    subprocess.run(["munged", "--force", f"--socket={folder}/munge.socket", *munge], check=True)
    daemons = []
    try:
        for name in ("slurmctld", "slurmd"):
            daemons.append(
                subprocess.Popen([name, "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        _wait_for(lambda: "idle" in _ask("sinfo", "--noheader", "--format=%T"), 60, "the node to be idle")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()
        os.kill(int((folder / "munge.pid").read_text()), 15)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _wait_for(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:.0f} s for {what}, in vain")
        time.sleep(0.2)


def requeue_one(output: Path) -> tuple[str, int, int]:
    """Requeue a job that trains and has a checkpoint; its training, that step, and the step of the next checkpoint."""
    found: list[Path] = []

    def trains() -> bool:
        found[:] = sorted((output / "store" / ".partial").glob("train-*/checkpoint/last.ckpt"))
        return bool(found) and bool(_running())

    _wait_for(trains, 300, "a training with a checkpoint")
    checkpoint = found[0]
    training = checkpoint.parents[1].name
    pid, job = _holder(output / "store" / ".locks" / f"{training}.json")
    subprocess.run(["scontrol", "requeue", job], check=True)
    _wait_for(lambda: not Path(f"/proc/{pid}").exists(), 60, "the requeued job to end")
    before = _step(checkpoint)
    print(f"requeued Slurm job {job}, which trains {training}, at step {before}", flush=True)
    _wait_for(lambda: _step(checkpoint) != before, 300, "the requeued job to go on")
    return training, before, _step(checkpoint)


def _step(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["pdm_fit"]["step"])


def _running() -> list[str]:
    return _ask("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()


def _holder(lease: Path) -> tuple[int, str]:
    """The process that holds the lease, and its Slurm job, as its environment says."""
    pid = json.loads(lease.read_text())["pid"]
    told = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return pid, next(line.partition("=")[2] for line in told if line.startswith("SLURM_JOB_ID="))


def run(folder: Path) -> list[str]:
    """Run the sweep with a requeued job; everything that is wrong."""
    output, log = folder / "out", folder / "run.log"
    words = ["hydra/launcher=slurm", "hydra.launcher.array_parallelism=2", f"paths.output={output}"]
    with log.open("w") as file:
        study = subprocess.Popen(command(*SWEEP, *words), stdout=file, stderr=subprocess.STDOUT)
        training, before, after = requeue_one(output)
        status = study.wait()
    if status:
        return [f"the study ended with {status}: {log.read_text()[-1500:]}"]
    print(f"{training}: the next checkpoint is of step {after}")
    segment = next(int(word.partition("=")[2]) for word in SWEEP if word.startswith("budget.train.segment="))
    wrong = (
        [] if after == before + segment else [f"{training} went on at step {after - segment}, not {before}"]
    )
    return wrong + in_one_process(folder / "quiet", SWEEP) + differences(output, folder / "quiet", "sweep")


def main() -> int:
    """Run it; 0 where all is well or Slurm is missing."""
    lacking = missing()
    if lacking:
        print(f"skipped: {lacking}")
        return 0
    with tempfile.TemporaryDirectory(prefix="pdml-slurm-", ignore_cleanup_errors=True) as scratch:
        folder, start = Path(scratch), time.monotonic()
        with one_node(folder):
            wrong = run(folder)
        print(
            f"{time.monotonic() - start:.0f} s; "
            + ("\n".join(wrong) or "as in one process; the requeued job went on")
        )
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
