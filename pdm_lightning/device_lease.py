"""GPUs of a machine, each in the hands of one process at a time, whichever study it belongs to.

A device is leased with a lock on a file, which the kernel frees when the holder ends, however it ends. Processes are
not told apart by ``CUDA_VISIBLE_DEVICES``: workers are reused, and a second study would know nothing of the first.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

log = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between two looks at devices that are all leased."""
REMIND = 60.0
"""Seconds between two lines that say what is waited for."""


def folder() -> Path:
    """Where the locks lie: one place a machine."""
    place = Path(tempfile.gettempdir()) / "pdm-lightning-devices"
    place.mkdir(exist_ok=True)
    with suppress(PermissionError):  # another user's: it is open to all already
        place.chmod(0o1777)
    return place


def gpus() -> list[str]:
    """A name for each GPU that PyTorch sees, the same in every process of the machine."""
    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


@contextmanager
def leased(names: Sequence[str], count: int = 1, place: Path | None = None) -> Iterator[list[int]]:
    """Hold `count` of the devices, waiting until so many are free.

    Parameters
    ----------
    names : sequence of str
        Devices of this machine.
    count : int
        How many are needed; all are taken at once or none.
    place : Path, optional
        Folder of the locks; default: `folder`.

    Yields
    ------
    list of int
        Places of the devices in `names`.

    Raises
    ------
    ValueError
        Where there are fewer devices.
    """
    if count > len(names):
        raise ValueError(f"{count} GPUs are asked for, and PyTorch sees {len(names)} here: ask for fewer")
    with ExitStack() as stack:
        yield _wait(names, count, place or folder(), stack)


def _wait(names: Sequence[str], count: int, place: Path, stack: ExitStack) -> list[int]:
    """Lock `count` of the devices, all at once; the stack gives them back.

    Those who want some of the same devices wait for their turn first: who wants many would wait for ever while others
    take each one as it comes free.
    """
    queue = place / f"queue-{hashlib.sha256(' '.join(sorted(names)).encode()).hexdigest()[:16]}"
    turn, reminded = False, time.monotonic() - REMIND + 5
    with ExitStack() as waiting:
        while True:
            turn = turn or _lock(queue, waiting)
            with ExitStack() as attempt:
                held = _take(names, count, place, attempt) if turn else []
                if len(held) == count:
                    stack.push(attempt.pop_all())
                    return held
            if time.monotonic() - reminded >= REMIND:
                log.warning(
                    "all %d GPUs are at work, or waited for; waiting for %d of them", len(names), count
                )
                reminded = time.monotonic()
            time.sleep(POLL)


def _take(names: Sequence[str], count: int, place: Path, stack: ExitStack) -> list[int]:
    """Lock what is free, up to `count`; the stack gives it back."""
    held: list[int] = []
    for number, name in enumerate(names):
        if len(held) < count and _lock(place / re.sub(r"[^\w.-]", "_", name), stack):
            held.append(number)
    return held


def _lock(path: Path, stack: ExitStack) -> bool:
    """Lock a file unless somebody else has done so; the stack unlocks it."""
    import fcntl

    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    stack.callback(os.close, descriptor)
    return True


def _open(path: Path) -> int:
    """Open a lock's file, which may be another user's: who locks needs no right to write."""
    with suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent)
    try:
        os.fchmod(descriptor, 0o444)  # before it is seen: whatever the umask, all may open it
        with suppress(FileExistsError):
            os.link(scratch, path)
    finally:
        os.close(descriptor)
        os.unlink(scratch)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
