"""The Hydra launchers of pdm-lightning: this machine's devices, Slurm, Ray.

Hydra imports every module of this folder at each start of any Hydra application, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class _Plain(Launcher):
    """A launcher whose jobs get their words as they are: nothing is composed in them."""

    shared_by = 8
    """Jobs that many short ones are put into."""
    patience = 75.0
    """Seconds that what a job wrote may take to be seen here: more than a network file system keeps what it knew."""
    here = False
    """Whether all jobs run on this machine, with its devices."""
    gpus: tuple[str, float] | None = None
    """Override that says how many GPUs a job gets, and how many these are; None where nobody knows."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the function that every job calls."""
        self.task = task_function

    def run(self, task: TaskFunction, jobs: list[dict[str, Any]]) -> list[str]:
        """Run all jobs; for each an empty text, or why it ended badly."""
        raise NotImplementedError

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one job for each list of words ``name=value``."""
        told = [dict(OmegaConf.from_dotlist(list(words))) for words in job_overrides]
        jobs = [{str(name): value for name, value in job.items()} for job in told]
        returns = []
        for words, error in zip(job_overrides, self.run(self.task, jobs), strict=True):
            status = JobStatus.FAILED if error else JobStatus.COMPLETED
            returns.append(JobReturn(overrides=words, status=status))
            returns[-1].return_value = RuntimeError(error) if error else None
        return returns


class LocalLauncher(_Plain):
    """Processes of this machine, which stay for all waves.

    Parameters
    ----------
    processes : int, optional
        How many; None: one for each GPU, or, without a GPU, one for each CPU core.
    threads : int, optional
        CPU threads of each; None: its share of the cores. ``trainer.threads`` has the last word.
    """

    patience = 0.0
    here = True

    def __init__(self, processes: int | None = None, threads: int | None = None) -> None:
        self.processes, self.threads = processes, threads
        self.workers: Any = None

    def run(self, task: TaskFunction, jobs: list[dict[str, Any]]) -> list[str]:
        """Share the jobs among the processes."""
        from pdm_lightning.launchers.local import Workers

        if self.workers is None:
            self.workers = Workers(self.processes, self.threads)
        self.shared_by = self.workers.count
        return list(self.workers.run(task, jobs))

    def close(self) -> None:
        """End the processes."""
        if self.workers is not None:
            self.workers.close()
            self.workers = None


class SlurmLauncher(_Plain):
    """A Slurm array for each wave (several, where it is larger than one may be), through submitit.

    Parameters
    ----------
    partition, account, qos : str, optional
    timeout_min : int
        Minutes that a job may take before it is requeued; what it has finished is kept.
    requeue : int
        How often a job may be requeued after its time was over.
    gpus_per_node, cpus_per_task, mem_gb : int, optional
        What a job asks for.
    array_parallelism : int
        Jobs of a wave that run at the same time.
    setup : list of str
        Lines of shell before Python starts.
    additional : dict
        Further options of ``sbatch``; one that is false is left out.
    """

    def __init__(self, **options: Any) -> None:
        self.options = _values(options)
        self.shared_by = int(self.options.pop("short_jobs"))
        if (gpus := self.options.get("gpus_per_node")) is not None:
            self.gpus = ("hydra.launcher.gpus_per_node", float(gpus))

    def run(self, task: TaskFunction, jobs: list[dict[str, Any]]) -> list[str]:
        """Submit an array and wait for it."""
        from pdm_lightning.launchers.slurm import run_array

        return run_array(task, jobs, **self.options)


class RayLauncher(_Plain):
    """Tasks of a Ray cluster.

    Parameters
    ----------
    address : str, optional
        Of a running cluster (``auto``, ``ray://host:10001``); None: one of this machine, for this study.
    num_cpus, num_gpus : float
        What a task asks for.
    max_retries : int
        How often a task is tried again where its process died; it goes on from what it had finished.
    """

    def __init__(self, **options: Any) -> None:
        self.options = _values(options)
        self.shared_by = int(self.options.pop("short_jobs"))
        self.gpus = ("hydra.launcher.num_gpus", float(self.options["num_gpus"]))
        if self.options["address"] is None:  # all on this machine
            self.patience = 0.0

    def run(self, task: TaskFunction, jobs: list[dict[str, Any]]) -> list[str]:
        """Submit the tasks and wait for them."""
        from pdm_lightning.launchers.on_ray import run_tasks

        return run_tasks(task, jobs, **self.options)

    def close(self) -> None:
        """Leave the cluster."""
        from pdm_lightning.launchers.on_ray import leave

        leave()


def _values(options: dict[str, Any]) -> dict[str, Any]:
    """Options as plain Python values."""
    values = OmegaConf.to_container(OmegaConf.create(options), resolve=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}
