"""Who holds a lease: a thread of a process of a machine, and whether that process still runs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes
    ----------
    host : str
        The machine's name, for people.
    machine : str
        Name, boot and process-number space together: process numbers mean something only within it.
    pid, start, thread : int, str, int
        The process, its start time (process numbers are reused) and the thread.
    token : str
        Unique to each lease.
    """

    host: str
    machine: str
    pid: int
    start: str
    thread: int
    token: str

    @property
    def local(self) -> bool:
        """Whether the holder is, or was, a process of this machine."""
        return self.machine == this_machine()

    def same_thread(self, other: Holder) -> bool:
        """Whether both are the same thread of the same process."""
        mine, theirs = ((h.machine, h.pid, h.start, h.thread) for h in (self, other))
        return mine == theirs

    def alive(self) -> bool:
        """Whether the holding process still runs (only meaningful where `local`)."""
        return process_start(self.pid) in (self.start, "")


def process_start(pid: int) -> str | None:
    """Return a text that identifies when process `pid` started.

    Returns
    -------
    str or None
        None where no such process runs (one that has ended and waits to be reaped does not run), an
        empty text where it runs, but may not be looked at.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    if not os.path.exists("/proc/self/stat"):
        ps = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
        state, _, start = ps.stdout.strip().partition(" ")
        return None if state.startswith("Z") else start.strip()
    try:
        # the name, in parentheses, may hold blanks: count from behind it (fields 3 and 22 of proc(5))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in "ZX" else fields[19]


@cache
def this_machine() -> str:
    """Identify the space in which process numbers are unique: host, boot and pid namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def myself() -> Holder:
    """Describe the calling thread, with a fresh token."""
    pid = os.getpid()
    start = process_start(pid) or ""
    return Holder(socket.gethostname(), this_machine(), pid, start, threading.get_ident(), uuid.uuid4().hex)
