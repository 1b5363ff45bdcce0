"""Worker processes of this machine that stay until they are ended, and take one job after the other."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from pdm_lightning.crew import end_with_parent

Task = Callable[[Any], Any]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_QUIET = {"PDM_QUIET_JOBS": "1"}  # whoever waits for the jobs tells how far they are


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Processes that run jobs.

    Parameters
    ----------
    count : int, optional
        How many; None: one for each GPU, or, without a GPU, for each core.
    threads : int, optional
        CPU threads of each; None: its share of the cores.

    Raises
    ------
    ValueError
        For numbers below 1.
    """

    def __init__(self, count: int | None = None, threads: int | None = None) -> None:
        for name, value in (("processes", count), ("threads", threads)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"hydra.launcher.{name}={value}: a whole number of at least 1 needed")
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        self.count = count or gpus or cores()
        self.threads = threads or max(1, cores() // self.count)
        self._spawn = get_context(
            "spawn"
        )  # a forked process cannot use a GPU, nor threads that its parent had
        self._idle: list[tuple[connection.Connection, BaseProcess]] = []

    def run(self, task: Task, jobs: Sequence[Any]) -> list[str]:
        """Run `task` on every job.

        A job whose process dies is not tried again; the process is replaced.

        Parameters
        ----------
        task : callable
            A function of a module: processes find it by its name.
        jobs : sequence
            What it is called with; pickled.

        Returns
        -------
        list of str
            For each job an empty text, or the error that it ended with, or how its process ended.
        """
        waiting, ended = deque(enumerate(jobs)), [""] * len(jobs)
        busy: dict[connection.Connection, tuple[BaseProcess, int]] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self.count:
                    channel, process = self._idle.pop() if self._idle else self._start()
                    number, job = waiting[0]
                    try:
                        channel.send((task, job))
                    except OSError:  # it died while it was idle: another one takes the job
                        process.join()
                        continue
                    waiting.popleft()
                    busy[channel] = (process, number)
                for heard in connection.wait(list(busy)):
                    assert isinstance(heard, connection.Connection)
                    process, number = busy.pop(heard)
                    ended[number] = self._hear(heard, process)
        finally:
            for process, _ in busy.values():
                _end(process)
        return ended

    def close(self) -> None:
        """End all processes."""
        for _, process in self._idle:
            _end(process)
        self._idle.clear()

    def _start(self) -> tuple[connection.Connection, BaseProcess]:
        here, there = self._spawn.Pipe()
        process = self._spawn.Process(target=_serve, args=(there,), name="pdml-worker")
        with _environment({name: str(self.threads) for name in _THREADS} | _QUIET):
            process.start()
        there.close()
        return here, process

    def _hear(self, channel: connection.Connection, process: BaseProcess) -> str:
        try:
            error: str = channel.recv()
        except (EOFError, OSError):
            process.join()
            code = process.exitcode or 0
            with suppress(ValueError):
                return (
                    f"its process was ended by {signal.Signals(-code).name}"
                    if code < 0
                    else f"it left with {code}"
                )
            return f"its process left with {code}"
        self._idle.append((channel, process))
        return error


def _serve(channel: connection.Connection) -> None:
    """One process: run what comes until the channel closes, or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group: the parent decides
    end_with_parent()
    while True:
        try:
            task, job = channel.recv()
        except EOFError:
            return
        try:
            task(job)
            error = ""
        except Exception as raised:
            error = f"{type(raised).__name__}: {(str(raised).splitlines() or [''])[0]}"
        sys.stderr.flush()
        channel.send(error)


def _end(process: BaseProcess) -> None:
    process.kill()
    process.join()


@contextmanager
def _environment(values: dict[str, str]) -> Any:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
