"""What Slurm and Ray are asked for, and what is said of jobs that end badly, with programs that look like theirs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.launchers import on_ray, slurm
from pdm_lightning.study.launching import make_launcher
from pdm_lightning.study.words import config_loader

OPTIONS: dict[str, Any] = {
    "timeout_min": 90,
    "requeue": 3,
    "array_parallelism": 2,
    "setup": ["module load cuda"],
    "additional": {"constraint": "a100"},
    "partition": "gpu",
    "account": None,
    "qos": None,
    "gpus_per_node": 1,
    "cpus_per_task": 4,
    "mem_gb": 16,
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``sbatch`` keeps what it is given, ``squeue`` tells what is in a file."""
    pytest.importorskip("submitit")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, line in {
        "sbatch": f'cd {tmp_path}; n=$((7 + $(ls | grep -c script))); cp "$1" script-$n; echo Submitted batch job $n',
        "squeue": f'cd {tmp_path}; echo "$@" >> asked; cat queue 2>/dev/null; exit $(cat rc 2>/dev/null || echo 0)',
        "scancel": f'echo "$@" >> {tmp_path}/cancelled',
        "scontrol": f"cat {tmp_path}/config 2>/dev/null",
        "srun": "true",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL", 0.02)
    monkeypatch.setattr(slurm, "GRACE", 0.1)
    return tmp_path


def jobs(folder: Path) -> list[dict[str, Any]]:
    return [{"wave": str(folder / "wave.json"), "job": number} for number in range(3)]


def test_an_array_asks_for_what_was_typed(programs: Path) -> None:
    ended = slurm.run_array(print, jobs(programs), **OPTIONS)
    script = (programs / "script-7").read_text()
    asked = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    wanted = ("array=0-2%2", "time=90", "partition=gpu", "cpus-per-task=4", "gpus-per-node=1", "mem=16GB")
    assert {*wanted, "constraint=a100", "job-name=pdml"} <= asked
    assert "module load cuda" in script and not any(line.startswith(("account", "qos")) for line in asked)
    assert "--jobs=7" in (programs / "asked").read_text()
    assert [end.partition(":")[0] for end in ended] == [f"Slurm job 7_{n} left no result" for n in range(3)]


def test_more_jobs_than_an_array_may_have_are_several_arrays(programs: Path) -> None:
    (programs / "config").write_text("MaxArrayTasks = 9\nMaxArraySize            = 2\nMaxDBDMsgs = 5\n")
    ended = slurm.run_array(print, jobs(programs), **OPTIONS)
    assert [end.partition(":")[0].split()[2] for end in ended] == ["7", "8_0", "8_1"]
    # no more of a wave run at the same time than was asked for
    assert "#SBATCH --array=0-1%1" in (programs / "script-8").read_text()
    assert "--jobs=7,8" in (programs / "asked").read_text()
    assert slurm._largest() == 2
    (programs / "config").unlink()
    assert slurm._largest() == 1000


def test_a_part_that_is_refused_cancels_the_others(programs: Path) -> None:
    (programs / "config").write_text("MaxArraySize = 2\n")
    sbatch = programs / "bin" / "sbatch"
    sbatch.write_text(sbatch.read_text().replace("cp ", "[ $n = 7 ] || { echo no more >&2; exit 1; }; cp "))
    with pytest.raises(RuntimeError, match="no more"):
        slurm.run_array(print, jobs(programs), **OPTIONS)
    assert (programs / "cancelled").read_text().strip() == "7"


@pytest.mark.parametrize("asked", [True, False])
def test_jobs_may_be_requeued_also_where_the_cluster_does_not_say_so(programs: Path, asked: bool) -> None:
    words = ["hydra/launcher=slurm"] + ([] if asked else ["hydra.launcher.additional.requeue=false"])
    config = config_loader().load_configuration("config", words, run_mode="RUN")  # type: ignore[arg-type]
    additional = dict(config.hydra.launcher.additional)
    slurm.run_array(print, jobs(programs), **{**OPTIONS, "additional": additional})
    lines = (programs / "script-7").read_text().splitlines()
    assert [line for line in lines if "SBATCH --requeue" in line] == (["#SBATCH --requeue"] if asked else [])


class Stopped:
    """A task that Ctrl+C, or what a SIGTERM leads to, stops so many times."""

    def __init__(self, times: int, announced: bool) -> None:
        self.left, self.announced, self.calls = times, announced, 0

    def __call__(self, job: str) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            if self.announced:
                signal.raise_signal(signal.SIGTERM)
            raise KeyboardInterrupt
        return job


def test_a_preempted_task_goes_on_until_it_is_killed() -> None:
    """Slurm requeues a job that it has killed; one that ends by itself within the time of grace is over."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        task = Stopped(2, announced=True)
        assert slurm.Resumed(task)("done") == "done"
        assert (task.calls, heard) == (3, [signal.SIGTERM] * 2)
        with pytest.raises(KeyboardInterrupt):
            slurm.Resumed(Stopped(1, announced=False))("job")
        pytest.importorskip("submitit")
        resumed = slurm.Resumed(Stopped(1, announced=True))
        again = resumed.checkpoint("job")  # it is in the queue again
        with pytest.raises(KeyboardInterrupt):
            resumed("job")
        assert again.function("job") == "job"
        signal.raise_signal(signal.SIGTERM)
        assert len(heard) == 4
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_end_of_a_job_s_log_says_why(programs: Path) -> None:
    logs = programs / "slurm"
    logs.mkdir()
    (logs / "7_1_0_log.err").write_text("first\nslurmstepd: error: Exceeded job memory limit\n")
    ended = slurm.run_array(print, jobs(programs), **OPTIONS)
    assert ended[1] == "Slurm job 7_1 left no result: slurmstepd: error: Exceeded job memory limit"


def test_jobs_in_the_queue_are_waited_for(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def passes(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 5:
            raise KeyboardInterrupt

    (programs / "queue").write_text("7_0\n7_1\n7_2\n")
    monkeypatch.setattr(slurm, "GRACE", 0.0)
    monkeypatch.setattr(slurm.time, "sleep", passes)
    with pytest.raises(KeyboardInterrupt):
        slurm.run_array(print, jobs(programs), **OPTIONS)
    assert (programs / "cancelled").read_text().strip() == "7"


def test_a_controller_that_says_nothing_is_not_waited_for_for_ever(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "rc").write_text("1")
    monkeypatch.setattr(slurm, "SILENCE", 0.3)
    with pytest.raises(TimeoutError, match="squeue has not answered"):
        slurm.run_array(print, jobs(programs), **OPTIONS)


@pytest.mark.parametrize(("name", "run"), [("submitit", slurm.run_array), ("ray", on_ray.run_tasks)])
def test_a_package_that_is_missing_is_named(name: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    cluster = {"address": None, "num_cpus": 1, "num_gpus": 0, "max_retries": 0}
    options = OPTIONS if name == "submitit" else cluster
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pdm-lightning\[(slurm|ray)\]'"):
        run(print, [{"wave": "x", "job": 0}], **options)


@pytest.mark.parametrize("name", ["local", "slurm", "ray"])
def test_every_launcher_of_conf_is_made_of_its_own_values(name: str) -> None:
    config = config_loader().load_configuration("config", [f"hydra/launcher={name}"], run_mode="RUN")  # type: ignore[arg-type]
    launcher = make_launcher(dict(config.hydra.launcher))
    assert type(launcher).__name__ == f"{name.title()}Launcher"
    assert launcher.shared_by == 8  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "network"),
    [
        (["hydra/launcher=local"], False),
        (["hydra/launcher=ray"], False),
        (["hydra/launcher=ray", "hydra.launcher.address=auto"], True),
        (["hydra/launcher=slurm"], True),
    ],
)
def test_what_another_machine_wrote_is_waited_for(words: list[str], network: bool) -> None:
    """For longer than NFS keeps that a file was not there, a minute."""
    config = config_loader().load_configuration("config", words, run_mode="RUN")  # type: ignore[arg-type]
    patience: float = make_launcher(dict(config.hydra.launcher)).patience  # type: ignore[attr-defined]
    assert patience > 60 if network else patience == 0
