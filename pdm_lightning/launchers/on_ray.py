"""Jobs as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

Task = Callable[[Any], Any]


def run_tasks(
    task: Task,
    jobs: Sequence[Any],
    *,
    address: str | None,
    num_cpus: float,
    num_gpus: float,
    max_retries: int,
) -> list[str]:
    """Submit one task a job and wait until all are over.

    Parameters
    ----------
    task : callable
        Called with each of `jobs` on some node.
    jobs : sequence
    address, num_cpus, num_gpus, max_retries
        See ``conf/hydra/launcher/ray.yaml``.

    Returns
    -------
    list of str
        For each job an empty text, or how it ended.

    Raises
    ------
    ModuleNotFoundError
        Without Ray.
    ValueError
        Where no node of the cluster could ever run such a task.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("hydra/launcher=ray needs Ray: pip install 'pdm-lightning[ray]'") from error
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **_own(address))
    _check(ray.cluster_resources(), {"CPU": num_cpus, "GPU": num_gpus})
    # the cores that a task has are the threads that it computes with
    environment = {"env_vars": {"OMP_NUM_THREADS": str(max(1, int(num_cpus))), **_paths()}}
    remote = ray.remote(_call).options(
        num_cpus=num_cpus, num_gpus=num_gpus, max_retries=max_retries, runtime_env=environment
    )
    return [_result(ray, running) for running in [remote.remote(task, job) for job in jobs]]


def leave() -> None:
    """Leave the cluster; one that was started for this study ends."""
    try:
        import ray
    except ModuleNotFoundError:
        return
    ray.shutdown()


def _own(address: str | None) -> dict[str, Any]:
    """A cluster of this machine alone needs no page, and computes on no more cores than this process may use."""
    return {} if address else {"include_dashboard": False, "num_cpus": len(os.sched_getaffinity(0))}


def _call(task: Task, job: Any) -> None:
    task(job)


def _paths() -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": path} if path else {}


def _check(there: dict[str, float], asked: dict[str, float]) -> None:
    for name, count in asked.items():
        if count > there.get(name, 0):
            raise ValueError(
                f"hydra.launcher.num_{name.lower()}s={count:g}: the cluster has {there.get(name, 0):g}: ask for less"
            )


def _result(ray: Any, running: Any) -> str:
    try:
        ray.get(running)
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        return lines[-1].strip() if lines else type(error).__name__
    return ""
