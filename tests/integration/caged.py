"""Do something with a stranger's file in a child process that may neither write, nor start anything, nor take long."""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

Work = Callable[[Path], str]
#: What nothing that reads a file has any business with.
FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "pickle.find_class",
    "marshal.loads",
    "socket.connect",
    "socket.bind",
    "urllib.Request",
    "ctypes.dlopen",
    "shutil.",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


def caged(work: Work, path: Path, seconds: float = 20.0, memory: int = 1500 * 2**20) -> str:
    """Outcome of ``work(path)`` in a child.

    Parameters
    ----------
    work : callable
        Gives an outcome in words, or raises.
    path : Path
        The file; what else the child opens for writing, or removes, starts or unpickles counts as an escape.
    seconds : float
        Wall-clock limit, and limit of computing time.
    memory : int
        Bytes of address space beyond those that this process has.

    Returns
    -------
    str
        What `work` gave; ``ERROR ...`` where it raised, ``MEMORY ...`` where it did for want of memory, ``CRASH ...``
        where a signal ended it, ``HANG``, or ``ESCAPE ...``.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(work, path, writing, seconds, memory)
    os.close(writing)
    told = _listen(reading, child, time.monotonic() + seconds)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if told is None:
        return "HANG"
    if os.WIFSIGNALED(status):
        return f"CRASH {signal.Signals(os.WTERMSIG(status)).name}"
    return told or f"CRASH exit {os.WEXITSTATUS(status)}"


def starved(error: BaseException | None) -> bool:
    """Whether an error, or one that it was made of, tells of too little memory: PyTorch's is a plain RuntimeError."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _listen(reading: int, child: int, until: float) -> str | None:
    """What the child says before its end; None where the time is up, and the child is killed then."""
    parts = []
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            os.kill(child, signal.SIGKILL)
            return None
        part = os.read(reading, 65536)
        if not part:
            return b"".join(parts).decode(errors="replace")
        parts.append(part)


def _child(work: Work, path: Path, writing: int, seconds: float, memory: int) -> None:
    escapes: list[str] = []
    try:
        _limit(seconds, memory)
        armed = [True]

        def hook(event: str, args: tuple[object, ...]) -> None:
            if armed[0] and _forbidden(event, args):
                escapes.append(f"{event} {str(args)[:80]}")

        sys.addaudithook(hook)
        try:
            outcome = work(path)
        except Exception as error:
            kind = "MEMORY" if starved(error) else "ERROR"
            outcome = f"{kind} {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        armed[0] = False
        if escapes:
            outcome = f"ESCAPE {escapes[0]}"
        os.write(writing, outcome.encode(errors="replace"))
    finally:
        os._exit(0)


def _forbidden(event: str, args: tuple[object, ...]) -> bool:
    if event == "open":
        mode, flags = args[1], args[2]
        named = isinstance(args[0], str | bytes)
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & _WRITES
        )
        return bool(named and writes)
    return event.startswith(FORBIDDEN)


def _limit(seconds: float, memory: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    faulthandler.disable()  # pytest's would print the crash
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
