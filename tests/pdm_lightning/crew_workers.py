"""What workers do in the tests of crews; they import it by its name, so it imports nothing heavy."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pdm_lightning.crew import Crew


def count(say: Any, start: int, upto: int) -> None:
    for number in range(start, upto):
        say(number)


def describe(say: Any) -> None:
    """Who works here: process, variables, what of this project's caller is loaded."""
    say((os.getpid(), os.environ.get("CREW_TEST"), "torch" in sys.modules, "pytest" in sys.modules))


def two_lines(say: Any) -> None:
    raise ValueError("a mistake\nand its second line")


def full(say: Any) -> None:
    raise OSError(errno.ENOSPC, "no room left", "/here")


def hidden(say: Any) -> None:
    try:
        full(say)
    except OSError as error:
        raise RuntimeError("the writer failed") from error


class Awkward(Exception):
    """Is pickled, and cannot be read again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def awkward(say: Any) -> None:
    raise Awkward(1, 2)


def leave(say: Any) -> None:
    sys.exit(3)


def killed(say: Any, mark: str = "") -> None:
    if mark:
        Path(mark).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def vanish(say: Any) -> None:
    say("before")
    os._exit(0)


def fails_first(say: Any, mark: str) -> None:
    try:
        raise ValueError("the reason")
    finally:
        Path(mark).touch()


def loses_its_peer(say: Any, mark: str) -> None:
    while not Path(mark).exists():
        time.sleep(0.01)
    time.sleep(0.05)
    raise ConnectionError("the peer is gone")


def sleep(say: Any) -> None:
    say(os.getpid())
    time.sleep(120)


def deaf(say: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    say("still here")


def nested(say: Any) -> None:
    """A worker with a crew of its own."""
    say(os.getpid())
    with Crew("inner") as crew:
        crew.start(sleep)
        for pid in crew:
            say(pid)
