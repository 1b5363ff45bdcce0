"""Processes that work for this one: they say how far they are, fail as one, and never outlive it.

A worker is a spawned process (a forked one cannot use a GPU, nor threads that its parent had) that runs a function of
an importable module. Nothing of the command line reaches it: the script that runs is not run again in it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

GRACE = 0.5  # seconds in which others may fail too before it is decided whose failure was the first
PARTING = 5.0  # seconds that a worker has to end by itself once its work is done

Say = Callable[[Any], None]


class WorkerFailed(RuntimeError):
    """A worker was killed, or failed with an error that cannot be raised here."""


class WorkerTraceback(Exception):
    """Where a worker failed: the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"in a worker:\n{self.args[0]}"


class Crew:
    """Start workers, listen to them, and end them all on leaving the ``with`` block, in whatever way that is left.

    Iterating gives what the workers say, until all have done their work; workers may be started meanwhile. Where one
    fails, its own error is raised here, its traceback as the cause; an error that cannot be sent is a `WorkerFailed`.
    Where several fail, one is the reason and the others lost their peer: a killed one counts first, then the earliest.

    Workers leave SIGINT and SIGTERM to this process, and end when it is gone, also where it was killed.

    Parameters
    ----------
    name : str
        Workers are called ``name-0``, ``name-1``, ...
    advice : str
        What to do about a worker that was killed, after "perhaps for want of memory: ".

    Examples
    --------
    >>> def count(say, upto):  # in a module
    ...     for number in range(upto):
    ...         say(number)
    >>> with Crew("count") as crew:
    ...     for _ in range(2):
    ...         crew.start(count, 3)
    ...     print(sorted(crew))
    [0, 0, 1, 1, 2, 2]
    """

    def __init__(self, name: str, *, advice: str = "run again") -> None:
        self.name, self.advice = name, advice
        self._workers: list[_Worker] = []

    def start(self, target: Callable[..., object], *args: Any, env: Mapping[str, str] | None = None) -> None:
        """Run ``target(say, *args)`` in a new process.

        Parameters
        ----------
        target : callable
            A function at the top of a module; what it gives to ``say`` comes out of the iteration here.
        *args
            Anything that can be pickled.
        env : mapping of str to str, optional
            Environment variables of that process alone, set before it imports anything.
        """
        spawn = get_context("spawn")
        here, there = spawn.Pipe(duplex=False)
        # all that is sent is pickled here: multiprocessing would put tensors into shared memory, which may be scarce
        work = pickle.dumps((target, args))
        process = spawn.Process(
            target=_work, args=(there, dict(env or {}), work), name=f"{self.name}-{len(self._workers)}"
        )
        self._workers.append(_Worker(process, here))  # first: an interrupt while it starts has to end it too
        with there, _no_script():
            process.start()

    def __iter__(self) -> Iterator[Any]:
        failures: list[_Failure] = []
        while self._working() and not failures:
            yield from self._hear(failures)
        until = time.monotonic() + GRACE
        while failures and self._working() and time.monotonic() < until:
            for _ in self._hear(failures, until - time.monotonic()):
                pass
        if failures:
            _raise(min(failures, key=lambda failure: (not failure.killed, failure.at)))

    def _working(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.working]

    def _hear(self, failures: list[_Failure], timeout: float | None = None) -> Iterator[Any]:
        """Wait until somebody has something to say, and pass it on; note who failed."""
        known: dict[Any, _Worker] = {}
        for worker in self._working():
            known |= {worker.channel: worker, worker.process.sentinel: worker}
        ready = connection.wait(list(known), timeout)
        for worker in dict.fromkeys(known[one] for one in ready):
            for kind, content in worker.messages(self.advice):
                if kind == "failed":
                    failures.append(content)
                elif kind == "said":
                    yield content

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        until = time.monotonic() + (PARTING if kind is None else 0)
        started = [worker for worker in self._workers if worker.process.pid is not None]
        for worker in started:
            if not worker.working:
                worker.process.join(max(0.0, until - time.monotonic()))
            worker.process.kill()
        for worker in started:
            worker.process.join()
            worker.channel.close()


@dataclass
class _Failure:
    """How a worker failed, in a form that always can be sent."""

    line: str
    trace: str = ""
    errno: int | None = None
    error: bytes = b""
    killed: bool = False
    at: float = field(default_factory=time.monotonic)  # of the machine, so that processes can be compared

    @staticmethod
    def of(error: BaseException) -> _Failure:
        """Describe an error that is being handled."""
        line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        pickled = b""
        # an error whose arguments are not those of its class can be pickled, and not be read again
        with contextlib.suppress(Exception):
            whole = pickle.dumps(error)
            pickle.loads(whole)
            pickled = whole
        return _Failure(line, traceback.format_exc(), _errno(error), pickled)


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    channel: connection.Connection
    working: bool = True

    def messages(self, advice: str) -> Iterator[tuple[str, Any]]:
        """What it said since the last call: ("said", anything), ("done", None) or ("failed", _Failure)."""
        ended = not self.process.is_alive()  # asked first: what it said before it ended is in the pipe by now
        try:
            while self.working and self.channel.poll():
                message: tuple[str, Any] = pickle.loads(self.channel.recv_bytes())
                self.working = message[0] == "said"
                yield message
        except (EOFError, OSError):  # it closed the pipe, perhaps in the middle of a message
            self.process.join()
            ended = True
        if ended and self.working:
            self.working = False
            yield "failed", self._lost(advice)

    def _lost(self, advice: str) -> _Failure:
        """Why a worker ended without a word."""
        code = self.process.exitcode or 0
        why = f"perhaps for want of memory: {advice}" if code < 0 else "see its own lines above"
        # a worker that lost its peer may abort; nobody is killed for that
        killed = code < 0 and code != -signal.SIGABRT
        return _Failure(f"process {self.process.name} was ended (exit code {code}), {why}", killed=killed)


def _raise(failure: _Failure) -> None:
    """Raise a worker's error as if it had come up here.

    An error number that stands somewhere in its chain of causes stays there: a full disk is told by it.
    """
    cause: Exception = WorkerTraceback(failure.trace or failure.line)
    error: Any = None
    with contextlib.suppress(Exception):
        error = pickle.loads(failure.error)
    if not isinstance(error, Exception):
        error = WorkerFailed(failure.line)
    if failure.errno is not None and getattr(error, "errno", None) is None:
        number = OSError(failure.errno, failure.line)
        number.__cause__ = cause
        cause = number
    raise error from cause


def leave_signals() -> None:
    """Leave SIGINT and SIGTERM, which may reach the whole group, to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _errno(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _work(channel: connection.Connection, env: dict[str, str], work: bytes) -> None:
    """The life of a worker."""
    end_with_parent()
    leave_signals()
    os.environ.update(env)

    def send(kind: str, content: Any) -> None:
        channel.send_bytes(pickle.dumps((kind, content)))

    try:
        target, args = pickle.loads(work)
        target(lambda content: send("said", content), *args)
    except BaseException as error:
        send("failed", _Failure.of(error))
    else:
        send("done", None)


def end_with_parent() -> None:
    """Leave when the parent is gone, even where that was killed: nobody would use what is made."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


@contextlib.contextmanager
def _no_script() -> Iterator[None]:
    """Hide the script that runs: a spawned process would run it again, to find there what it was sent."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
