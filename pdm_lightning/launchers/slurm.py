"""Jobs as a Slurm array, through submitit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Task = Callable[[Any], Any]

POLL = 2.0
"""Seconds between two looks at the queue."""
GRACE = 30.0
"""Seconds after which a job that has left the queue without a result is over: file systems are slow."""
SILENCE = 600.0
"""Seconds that the controller may say nothing."""
ARRAY = 1000
"""Jobs of one array, where Slurm does not say how many there may be: one less than its default."""


class Resumed:
    """A task that Slurm may requeue: it is called again with the same job, and finds what it had finished.

    A SIGTERM announces a preemption, whose SIGKILL follows; Slurm requeues a job that it has killed, and not one that
    ends by itself. So a task that is stopped by a SIGTERM (as Lightning stops a training) goes on until it is killed.

    Parameters
    ----------
    task : callable
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.requeued = False

    def __call__(self, job: Any) -> Any:
        """Run the task."""
        before: Any = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
        told: list[int] = []

        def tell(number: int, frame: Any) -> None:
            told.append(number)
            if callable(before):
                before(number, frame)

        signal.signal(signal.SIGTERM, tell)
        try:
            while True:
                told.clear()
                try:
                    return self.task(job)
                except (KeyboardInterrupt, SystemExit):
                    if not told or self.requeued:
                        raise
        finally:
            signal.signal(signal.SIGTERM, before)

    def checkpoint(self, job: Any) -> Any:
        """What submitit asks when the time is over, or the job is preempted; it requeues the job then."""
        from submitit.helpers import DelayedSubmission

        self.requeued = True
        return DelayedSubmission(Resumed(self.task), job)


def run_array(
    task: Task,
    jobs: Sequence[Any],
    *,
    timeout_min: int,
    requeue: int,
    array_parallelism: int,
    setup: Sequence[str],
    additional: Mapping[str, Any],
    folder: str | None = None,
    **asked: Any,
) -> list[str]:
    """Submit an array, or several where one may not be as large, and wait until all of it is over.

    Parameters
    ----------
    task : callable
        Called with each of `jobs` on some node.
    jobs : sequence
    timeout_min, requeue, array_parallelism, setup, additional
        See ``conf/hydra/launcher/slurm.yaml``.
    folder : str, optional
        Where submitit keeps its files and the output of the jobs; default: beside the wave's own file.
    **asked
        ``partition``, ``account``, ``qos``, ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``; None: not asked for.

    Returns
    -------
    list of str
        For each job an empty text, or how it ended.

    Raises
    ------
    ModuleNotFoundError
        Without submitit.
    RuntimeError
        Where Slurm refuses the array.
    """
    try:
        from submitit import SlurmExecutor
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "hydra/launcher=slurm needs submitit: pip install 'pdm-lightning[slurm]'"
        ) from error
    place = folder or str(Path(unquote(str(jobs[0]["wave"]))).parent / "slurm")
    executor = SlurmExecutor(folder=place, max_num_timeout=requeue)
    memory = asked.pop("mem_gb", None)
    more = {name: asked.pop(name) for name in ("account", "qos", "partition") if asked.get(name)}
    options = {name: value for name, value in asked.items() if value is not None}
    parts = _parts(list(jobs), _largest())
    executor.update_parameters(
        job_name="pdml",
        time=timeout_min,
        array_parallelism=max(1, array_parallelism // len(parts)),
        setup=list(setup) or None,
        additional_parameters={k: v for k, v in {**more, **dict(additional)}.items() if v is not False},
        **({"mem": f"{memory}GB"} if memory else {}),
        **options,
    )
    submitted: list[Any] = []
    try:
        for part in parts:
            submitted += executor.map_array(Resumed(task), part)
        _wait(submitted)
    except TimeoutError:
        raise
    except BaseException:  # Ctrl+C, or a part that Slurm refuses
        if submitted:
            subprocess.run(["scancel", *_arrays(submitted)], check=False)
        raise
    return [_ended(job) for job in submitted]


def _largest() -> int:
    """How many jobs one array may have."""
    try:
        told = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, check=True
        ).stdout
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", told, re.MULTILINE)
    except (OSError, subprocess.CalledProcessError):
        found = None
    return max(1, int(found[1])) if found else ARRAY


def _parts(jobs: list[Any], largest: int) -> list[list[Any]]:
    """The jobs in as few parts as can be, of about the same size."""
    count = -(-len(jobs) // largest)
    ends = [len(jobs) * number // count for number in range(count + 1)]
    return [jobs[start:end] for start, end in pairwise(ends)]


def _arrays(submitted: Iterable[Any]) -> list[str]:
    return sorted({job.job_id.partition("_")[0] for job in submitted})


def _wait(submitted: Sequence[Any]) -> None:
    """Wait until every job has a result, or has left the queue for good.

    Raises
    ------
    TimeoutError
        Where Slurm has not answered for `SILENCE`.
    """
    gone: dict[str, float] = {}
    left = {job.job_id: job for job in submitted}
    heard = time.monotonic()
    while left:
        queued, now = _queued(_arrays(left.values())), time.monotonic()
        if queued is not None:
            heard = now
            os.listdir(
                submitted[0].paths.folder
            )  # else a network file system keeps for a minute what was not there
        elif now - heard > SILENCE:
            raise TimeoutError(f"squeue has not answered for {SILENCE / 60:.0f} minutes; the jobs may go on")
        for job_id, job in list(left.items()) if queued is not None else ():
            if job_id in queued:  # type: ignore[operator]
                gone.pop(job_id, None)
            elif job.paths.result_pickle.exists() or now - gone.setdefault(job_id, now) > GRACE:
                del left[job_id]
        time.sleep(POLL)


def _queued(arrays: Sequence[str]) -> set[str] | None:
    """Ids of the jobs of these arrays that Slurm still has, waiting or running."""
    asked = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(arrays)}"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return None  # a controller that does not answer for a moment says nothing of the jobs
    return set(answer.stdout.split())


def _ended(job: Any) -> str:
    """How a job ended: its result says it, or the end of its log."""
    if job.paths.result_pickle.exists():
        return ""
    try:
        lines = job.paths.stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"Slurm job {job.job_id} left no result: {lines[-1] if lines else job.paths.stderr}"
