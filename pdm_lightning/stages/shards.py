"""Crafting shared among processes: each attacks batches of its own and leaves them in the same folder.

No process waits for another and nothing is sent between them, so there is no process group: what one has finished
is a file that counts, whatever becomes of the others.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdm_lightning.progress import Progress
from pdm_lightning.store import Store

if TYPE_CHECKING:
    from pdm_lightning.stages.context import Context
    from pdm_lightning.stages.engine import Engine
    from pdm_lightning.study.plan import Node

POLL = 0.5  # seconds between two looks at what the processes have said


class ShardFailed(RuntimeError):
    """A process that shared a crafting failed, or was killed."""


def devices(first: torch.device, count: int) -> list[torch.device]:
    """A device for each of `count` processes: GPUs from `first` on, or the CPU for all.

    Raises
    ------
    ValueError
        Where there are fewer GPUs.
    """
    if first.type != "cuda":
        return [first] * count
    start, present = first.index or 0, torch.cuda.device_count()
    if start + count > present:
        raise ValueError(
            f"craft.devices={count}: PyTorch sees {present} GPUs here, from cuda:{start} on {present - start}: "
            f"use craft.devices={present - start}"
        )
    return [torch.device("cuda", start + rank) for rank in range(count)]


def share_of_threads(device: torch.device, count: int) -> int:
    """CPU threads of each of `count` processes: a part of this one's where the CPU computes."""
    threads = torch.get_num_threads()
    return max(1, threads // count) if device.type == "cpu" else threads


@contextmanager
def as_one_of(device: torch.device, count: int) -> Iterator[None]:
    """Compute with the threads that one of `count` processes will have."""
    before = torch.get_num_threads()
    torch.set_num_threads(share_of_threads(device, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(
    node: Node,
    folder: Path,
    context: Context,
    parts: Sequence[Tensor],
    engine: Engine,
    progress: Progress,
) -> None:
    """Have ``runtime.devices`` processes attack the batches `parts`, the r-th, (r + N)-th, ... by process r.

    Raises
    ------
    ShardFailed
        Where a process failed; the others are ended, and finished batches stay.
    ValueError
        Where there are too few devices.
    """
    count = min(int(node.runtime["devices"]), len(parts))
    places = devices(context.device(node), count)
    threads = share_of_threads(places[0], count)
    spawn = get_context("spawn")  # a forked process cannot use a GPU, nor threads that its parent had
    workers: dict[connection.Connection, BaseProcess] = {}
    with _ended(workers):
        for rank, place in enumerate(places):
            here, there = spawn.Pipe(duplex=False)
            share = list(parts[rank::count])
            process = spawn.Process(
                target=_work,
                args=(node, folder, context.store.root, str(place), threads, share, engine, there),
                name=f"craft-{rank}",
                daemon=True,
            )
            process.start()
            there.close()
            workers[here] = process
        _listen(workers, progress)


def _listen(workers: dict[connection.Connection, BaseProcess], progress: Progress) -> None:
    """Show what the processes say until all have ended well."""
    waiting: list[Any] = list(workers)
    while waiting:
        for channel in connection.wait(waiting, timeout=POLL):
            assert isinstance(channel, connection.Connection)
            try:
                done, error = channel.recv()
            except EOFError:
                waiting.remove(channel)
                _ended_well(workers[channel])
                continue
            if error is not None:
                line, trace, number = error
                # a full disk stays one: whoever runs the node says so in words of its own
                raise ShardFailed(line) from (
                    RuntimeError(trace) if number is None else OSError(number, line)
                )
            progress.update(done)


def _ended_well(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        why = "see its own lines above"
        if process.exitcode < 0:
            why = "perhaps for want of memory: run again, with a smaller craft.batch_size or fewer craft.devices"
        raise ShardFailed(f"process {process.name} was ended (exit code {process.exitcode}), {why}")


@contextmanager
def _ended(workers: dict[connection.Connection, BaseProcess]) -> Iterator[None]:
    """End the processes that still run, whatever happens."""
    try:
        yield
    finally:
        for process in workers.values():
            process.kill()
        for process in workers.values():
            process.join()


def _work(
    node: Node,
    folder: Path,
    root: Path,
    place: str,
    threads: int,
    parts: list[Tensor],
    engine: Engine,
    channel: connection.Connection,
) -> None:
    """One process: attack the batches and say how many images are done, or what went wrong."""
    from pdm_lightning.stages.context import Context
    from pdm_lightning.stages.craft import craft_parts

    _end_with_parent()
    torch.set_num_threads(threads)

    def show(done: int, **_: Any) -> None:
        if done:
            channel.send((done, None))

    try:
        craft_parts(
            node, folder, Context(Store(root), progress=False), torch.device(place), parts, engine, show
        )
    except Exception as error:
        line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        channel.send((0, (line, traceback.format_exc(), getattr(error, "errno", None))))
    finally:
        channel.close()


def _end_with_parent() -> None:
    """Leave when the parent is gone, even where that was killed: nobody would publish what is made."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()
