"""A lease on a name: one holder at a time, among processes and machines that share a folder.

A lease is a small file that only its creator may hold. While it is held, a thread renews the file's
modification time, the *heartbeat*. A lease whose holder has died is taken over: at once where the
holder was a process of this machine, and after `STALE_AFTER` seconds without a heartbeat otherwise.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

from pdm_lightning.holder import Holder, myself

log = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two heartbeats."""

STALE_AFTER = 60.0
"""Seconds without a heartbeat after which a holder on another machine counts as dead."""

PATIENCE = 3.0
"""Seconds that the lock on leases is waited for: it is held for an instant, unless its holder was suspended in it."""

_POLL = (0.02, 1.0)  # first and longest pause between two looks at a lease that somebody else holds
_REMIND = 60.0  # seconds between two lines that say who is waited for


class LeaseLost(RuntimeError):
    """The lease was taken over (or its file removed) while it was held."""


def _look(path: Path) -> tuple[Holder | None, float] | None:
    """Read a lease: its holder (None while it is being written) and heartbeat; None where there is none."""
    try:
        # opening, not only `stat`, makes a network file system ask its server anew
        with path.open(encoding="utf-8") as file:
            beat = os.fstat(file.fileno()).st_mtime
            text = file.read()
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(text)), beat
    except (ValueError, TypeError):
        return None, beat


def is_held(path: Path, stale_after: float = STALE_AFTER) -> bool:
    """Say at one glance, without waiting, whether a live holder has the lease at `path`.

    Parameters
    ----------
    stale_after : float
        Seconds without a heartbeat after which a holder elsewhere counts as dead, by this machine's clock: where clocks
        may differ and a wrong answer does harm, it has to be more than they differ by.
    """
    seen = _look(path)
    if seen is None:
        return False
    holder, beat = seen
    if holder is not None and holder.local:
        return holder.alive()
    return time.time() - beat < stale_after


def clear(path: Path, silent_for: float = STALE_AFTER) -> bool:
    """Remove the lease at `path` if its holder has died; whether it was removed.

    Parameters
    ----------
    silent_for : float
        Seconds without a heartbeat, by this machine's clock, after which a holder elsewhere counts as dead.
    """
    with _guard(path.parent):
        if not path.exists() or is_held(path, silent_for):
            return False
        path.unlink()
        return True


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """Hold the folder's short lock, under which leases are made and removed.

    The kernel frees it when its holder dies. Where the file system has no such locks, or its holder is suspended,
    creating a lease is still exclusive, and one that two waiters take over at the same instant is noticed by `check`.
    """
    import fcntl

    with (folder / ".guard").open("a") as file:
        end = time.monotonic() + PATIENCE
        with contextlib.suppress(OSError):
            while not _locked(file) and time.monotonic() < end:
                time.sleep(_POLL[0])
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)


def _locked(file: IO[str]) -> bool:
    """Try to lock a file; OSError where the file system cannot."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Lease:
    """A lease that this process holds; made by `hold`.

    The heartbeat renews the file through its own descriptor: should somebody else have taken the lease
    over, theirs is a new file, which this can neither renew nor remove.

    Attributes
    ----------
    robbed : bool
        Whether it was taken from a holder that fell silent and may still be alive, as nobody here can tell.
    """

    def __init__(self, path: Path, descriptor: int, beat: float, robbed: bool = False) -> None:
        self.path, self.robbed = path, robbed
        self._descriptor = descriptor
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, args=(beat,), name="lease", daemon=True)
        self._thread.start()

    def _renew(self, beat: float) -> None:
        while not self._over.wait(beat):
            with contextlib.suppress(OSError):  # a hiccup of the file system: the next beat counts, too
                os.utime(self._descriptor)

    def mine(self) -> bool:
        """Whether it has neither been taken over nor removed."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except OSError:
            return False

    def check(self) -> None:
        """Raise `LeaseLost` where the lease has been taken over or removed."""
        if not self.mine():
            raise LeaseLost(
                f"the lease {self.path} was taken over or removed while this process (pid {os.getpid()}) "
                "worked under it"
            )

    def release(self) -> None:
        """Stop the heartbeat and give the lease back, if it is still this one."""
        self._over.set()
        self._thread.join()
        try:
            with contextlib.suppress(OSError), _guard(self.path.parent):
                if self.mine():
                    self.path.unlink()
        finally:
            os.close(self._descriptor)


class _Watch:
    """What one waiter has seen of somebody else's lease, by its own clock.

    Clocks of machines need not agree, so a heartbeat is never compared with this machine's time: a holder
    elsewhere is dead when its heartbeat has not *changed* for `stale_after` seconds. A holder on this
    machine is dead when its process is; one that is merely suspended is never robbed.
    """

    def __init__(self, stale_after: float) -> None:
        self.stale_after = stale_after
        self.seen: tuple[Holder | None, float] | None = None
        self.since = time.monotonic()
        self.robbed = False  # whether a holder was taken for dead that may still be alive

    def dead(self, seen: tuple[Holder | None, float]) -> bool:
        if seen != self.seen:
            self.seen, self.since = seen, time.monotonic()
        holder = seen[0]
        if holder is not None and holder.local:
            return not holder.alive()
        return time.monotonic() - self.since >= self.stale_after


def _try_take(path: Path, watch: _Watch, what: str) -> int | None:
    """Take the lease where it is free or its holder dead; return its descriptor, or None."""
    with _guard(path.parent):
        seen = _look(path)
        if seen is not None:
            if not watch.dead(seen):
                return None
            watch.robbed = seen[0] is None or not seen[0].local
            log.warning("%s: its builder has died (%s); taking over", what, _who(seen[0]))
            path.unlink(missing_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        try:
            os.write(descriptor, json.dumps(asdict(myself())).encode())
        except OSError:  # a full disk: leave no nameless lease behind
            os.close(descriptor)
            path.unlink()
            raise
        return descriptor


def _who(holder: Holder | None) -> str:
    return f"process {holder.pid} on {holder.host}" if holder else "an unknown process"


def _refuse_self(holder: Holder | None, what: str) -> None:
    """Raise where the thread that waits is the one that holds: it would wait for ever."""
    if holder is not None and holder.same_thread(myself()):
        raise RuntimeError(f"{what} is asked for while this very thread builds it: it depends on itself")


@contextlib.contextmanager
def hold(
    path: Path,
    what: str,
    *,
    ready: Callable[[], bool] = lambda: False,
    beat: float = BEAT,
    stale_after: float = STALE_AFTER,
) -> Iterator[Lease | None]:
    """Hold the lease at `path`, waiting for whoever has it.

    Parameters
    ----------
    path : Path
        The lease's file; its folder is created.
    what : str
        What is waited for, for the log.
    ready : callable
        Asked at every look while another holds the lease; once true, waiting ends without a lease.
    beat, stale_after : float
        Seconds between heartbeats, and without one until a holder elsewhere counts as dead.

    Yields
    ------
    Lease or None
        None where `ready` ended the wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    watch, pause, reminded = _Watch(stale_after), _POLL[0], -_REMIND
    while (descriptor := _try_take(path, watch, what)) is None:
        if ready():
            yield None
            return
        holder = watch.seen[0] if watch.seen else None
        _refuse_self(holder, what)
        if time.monotonic() - reminded >= _REMIND:
            log.warning("%s: being built by %s; waiting for it", what, _who(holder))
            reminded = time.monotonic()
        time.sleep(pause)
        pause = min(2 * pause, _POLL[1])
    lease = Lease(path, descriptor, beat, watch.robbed)
    try:
        yield lease
    finally:
        lease.release()
