"""One training on several devices: a process for each, started on the resolved settings and nothing else."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from socket import if_nameindex
from typing import TYPE_CHECKING, Any

import torch

from pdm_lightning.crew import Crew, Say
from pdm_lightning.data import load_data
from pdm_lightning.devices import several, share_of_threads
from pdm_lightning.pace import Pace
from pdm_lightning.progress import Progress
from pdm_lightning.replicas import Replica, check_shares, join, meeting_point
from pdm_lightning.stages.begun import begin
from pdm_lightning.stages.context import Context, open_classifier
from pdm_lightning.stages.train import proceed, what
from pdm_lightning.store import Store
from pdm_lightning.tracking import tracking

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node


@dataclass(frozen=True)
class Job:
    """What every process gets: plain values, resolved.

    Attributes
    ----------
    spec
        Of the training, as :func:`pdm_lightning.stages.train.fit` takes it.
    data
        Of the node: where its images are.
    logged
        What :func:`pdm_lightning.tracking.tracking` takes.
    folder, store
        Where it is trained, and where artifacts are.
    teacher
        Kind and key of the artifact of the classifier that is distilled; None without one.
    places
        Devices by rank.
    threads
        CPU threads of each process.
    watched
        Whether the rows of the log are said after each segment.
    pace
        How each process runs it.
    """

    spec: dict[str, Any]
    data: dict[str, Any]
    logged: dict[str, Any]
    folder: Path
    store: Path
    teacher: tuple[str, str] | None
    places: tuple[str, ...]
    threads: int
    watched: bool
    pace: Pace


def train_together(
    node: Node,
    spec: dict[str, Any],
    folder: Path,
    context: Context,
    teacher: Node | None,
    count: int,
    logged: dict[str, Any],
    pace: Pace,
) -> None:
    """Train with `count` processes into ``folder``, going on from an earlier call's checkpoint.

    The batch is shared, the learning rate stays: up to rounding the result is that of one device.

    Raises
    ------
    ValueError
        Where there are too few devices, or they cannot share a batch evenly.
    Exception
        The first error of a process, or what ``context.watch`` raises; the others are ended.
    pdm_lightning.crew.WorkerFailed
        Where a process was killed.
    """
    begun = begin(context.data(node), spec, folder)
    if begun.result is not None:
        return
    places = several(context.devices(node), count, "trainer.devices")
    check_shares(begun.batch_size, count)
    job = Job(
        spec=spec,
        data=node.runtime["data"],
        logged=logged,
        folder=folder,
        store=context.store.root,
        teacher=None if teacher is None else (teacher.kind, teacher.key),
        places=tuple(map(str, places)),
        threads=share_of_threads(places[0], count),
        watched=context.watch is not None,
        pace=pace,
    )
    if context.progress:
        print(f"{what(teacher)} {_told(job, begun.batch_size)}", file=sys.stderr, flush=True)
    store = meeting_point()
    with Crew("train", advice="run again to go on from the checkpoint") as crew:
        for rank in range(count):
            crew.start(_work, job, rank, store.port, env=_env(job.threads))
        told = iter(crew)
        next(told)  # they have met: from now on the progress is measured
        with Progress(begun.steps, what(teacher), enabled=context.progress, done=begun.done) as progress:
            for steps, shown, rows in told:
                progress.update(steps, **shown)
                if rows and context.watch is not None:
                    context.watch(node, rows)


def _told(job: Job, batch: int) -> str:
    """How the work is shared, in one line."""
    count, lr = len(job.places), job.spec["optimizer"].get("lr")
    return (
        f"on {count} devices ({', '.join(job.places)}): {batch} anchors a step, {batch // count} a device; "
        f"learning rate {'' if lr is None else f'{lr}, '}as on one device"
    )


def _env(threads: int) -> dict[str, str]:
    """What libraries of a process read before they can be told: threads, warnings, and where gloo listens."""
    local = [name for _, name in if_nameindex() if name in ("lo", "lo0")]
    wished = {"TORCH_CPP_LOG_LEVEL": "ERROR"} | ({"GLOO_SOCKET_IFNAME": local[0]} if local else {})
    mine = {name: value for name, value in wished.items() if name not in os.environ}
    return mine | {"OMP_NUM_THREADS": str(threads)}


def _work(say: Say, job: Job, rank: int, port: int) -> None:
    """One process: train, and, as the first, say how far it is, log and write."""
    torch.set_num_threads(job.threads)
    replica, places = Replica(rank, len(job.places)), [torch.device(place) for place in job.places]
    data = load_data(job.data)
    teacher = open_classifier(Store(job.store).open(*job.teacher)) if job.teacher else None
    begun = begin(data, job.spec, job.folder)
    join(replica, places[rank], port)

    def show(steps: int, **shown: Any) -> None:
        if rank == 0:
            say((steps, shown, ()))

    show(0)
    watch = (lambda rows: say((0, {}, rows))) if job.watched else None
    log: AbstractContextManager[list[Any]] = nullcontext([]) if rank else tracking(**job.logged)
    with log as loggers:
        proceed(data, begun, places, replica, loggers, show, teacher, watch, job.pace)
