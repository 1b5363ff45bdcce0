"""Jobs as a Slurm array, through submitit."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Task = Callable[[Any], Any]

POLL = 2.0
"""Seconds between two looks at the queue."""
GRACE = 30.0
"""Seconds after which a job that has left the queue without a result is over: file systems are slow."""
SILENCE = 600.0
"""Seconds that the controller may say nothing."""


class Resumed:
    """A task that Slurm may requeue: it is called again with the same job, and finds what it had finished.

    Parameters
    ----------
    task : callable
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, job: Any) -> Any:
        """Run the task."""
        return self.task(job)

    def checkpoint(self, job: Any) -> Any:
        """What submitit asks when the time is over, or the job is preempted."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


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
    """Submit one array and wait until all of it is over.

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
    place = folder or str(Path(str(jobs[0]["wave"])).parent / "slurm")
    executor = SlurmExecutor(folder=place, max_num_timeout=requeue)
    memory = asked.pop("mem_gb", None)
    more = {name: asked.pop(name) for name in ("account", "qos", "partition") if asked.get(name)}
    options = {name: value for name, value in asked.items() if value is not None}
    executor.update_parameters(
        job_name="pdml",
        time=timeout_min,
        array_parallelism=array_parallelism,
        setup=list(setup) or None,
        additional_parameters={**more, **dict(additional)},
        **({"mem": f"{memory}GB"} if memory else {}),
        **options,
    )
    submitted = executor.map_array(Resumed(task), list(jobs))
    try:
        _wait(submitted)
    except KeyboardInterrupt:
        subprocess.run(["scancel", *_arrays(submitted)], check=False)
        raise
    return [_ended(job) for job in submitted]


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
