"""Devices are held by one process at a time, and freed by its death."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pdm_lightning import device_lease
from pdm_lightning.device_lease import leased

HOLD = """
import sys, time
from pathlib import Path
from pdm_lightning.device_lease import leased
with leased(["a", "b"], int(sys.argv[2]), Path(sys.argv[1])) as held:
    print(held, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_lease, "POLL", 0.02)


def holder(place: Path, count: int) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place), str(count)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_two_holders_get_different_devices(tmp_path: Path) -> None:
    with leased(["a", "b"], place=tmp_path) as first, leased(["a", "b"], place=tmp_path) as second:
        assert (first, second) == ([0], [1])
    with leased(["a", "b"], 2, tmp_path) as both:
        assert both == [0, 1]


def test_a_killed_holder_holds_no_longer(tmp_path: Path) -> None:
    process, said = holder(tmp_path, 2)
    assert said == "[0, 1]"
    killer = threading.Timer(0.5, process.kill)
    killer.start()
    start = time.monotonic()
    with leased(["a", "b"], place=tmp_path) as held:
        assert held == [0] and time.monotonic() - start > 0.3
    process.wait()


def test_who_needs_many_gets_them_before_those_who_come_later(tmp_path: Path) -> None:
    """While others take one device after the other, both are never free at a time by chance."""
    process, said = holder(tmp_path, 1)
    assert said == "[0]"
    got: list[list[int]] = []

    def want(count: int) -> None:
        with leased(["a", "b"], count, tmp_path) as held:
            got.append(held)

    both = threading.Thread(target=want, args=(2,))
    both.start()
    time.sleep(0.2)
    one = threading.Thread(target=want, args=(1,))
    one.start()
    time.sleep(0.2)
    assert not got
    process.kill()
    process.wait()
    both.join(timeout=10)
    one.join(timeout=10)
    assert got == [[0, 1], [0]]


def test_who_waits_for_many_and_is_killed_stops_nobody(tmp_path: Path) -> None:
    with leased(["a", "b"], place=tmp_path):
        waiting = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), "2"])
        while not any(_locked(path) for path in tmp_path.glob("queue-*")):
            time.sleep(0.02)
        waiting.kill()
        waiting.wait()
        with leased(["a", "b"], place=tmp_path) as held:
            assert held == [1]


def _locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_more_than_there_are(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="3 GPUs are asked for, and PyTorch sees 2 here"),
        leased(["a", "b"], 3, tmp_path),
    ):
        pass


def test_the_locks_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They can be read, whatever that user's umask, and neither written nor, in a folder like /tmp, created again."""
    before = os.umask(0o077)
    try:
        with leased(["a", "b"], 2, tmp_path):
            pass
    finally:
        os.umask(before)
    modes = {path.name.partition("-")[0]: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"a": 0o444, "b": 0o444, "queue": 0o444}
    really = os.open

    def as_another(path: str, flags: int, *mode: int) -> int:
        if os.path.exists(path) and flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise PermissionError(13, "Permission denied", path)
        return really(path, flags, *mode)

    monkeypatch.setattr(os, "open", as_another)
    with leased(["a", "b"], place=tmp_path) as first, leased(["a", "b"], place=tmp_path) as second:
        assert (first, second) == ([0], [1])


def test_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="work"), leased(["a"], place=tmp_path):
        raise RuntimeError("work")
    with leased(["a"], place=tmp_path) as held:
        assert held == [0]
