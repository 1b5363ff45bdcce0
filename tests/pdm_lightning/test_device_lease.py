"""Devices are held by one process at a time, and freed by its death."""

from __future__ import annotations

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


def test_all_or_none(tmp_path: Path) -> None:
    """Who needs two devices and finds one free does not keep it from others while it waits."""
    process, said = holder(tmp_path, 1)
    assert said == "[0]"
    got: list[list[int]] = []

    def want_both() -> None:
        with leased(["a", "b"], 2, tmp_path) as held:
            got.append(held)

    waiting = threading.Thread(target=want_both)
    waiting.start()
    time.sleep(0.2)
    with leased(["a", "b"], place=tmp_path) as held:
        assert held == [1] and not got
    process.kill()
    process.wait()
    waiting.join(timeout=10)
    assert got == [[0, 1]]


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
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "a": 0o444,
        "b": 0o444,
    }
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
