"""Progress: silence for short work, lines without a terminal, a bar on one."""

from __future__ import annotations

import io

import pytest

from pdm_lightning.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_short_work_without_a_terminal_writes_nothing():
    stream = io.StringIO()
    with Progress(5, "train", stream=stream) as progress:
        for _ in range(5):
            progress.update(loss=1.0)
    assert stream.getvalue() == ""
    assert progress.done == 5


def test_lines_tell_the_count_the_time_left_and_the_fields(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pdm_lightning.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with Progress(100, "train", done=20, stream=stream) as progress:
        for _ in range(41):
            now[0] += 0.5
            progress.update(loss=0.123456)
    lines = stream.getvalue().splitlines()
    # 20.5 s of work give a line at 10 s and at 20 s; closing adds what came after
    assert lines[0] == "train: 40/100, 2/s, 30 s left, loss 0.123"
    assert lines[1] == "train: 60/100, 2/s, 20 s left, loss 0.123"
    assert lines[2].startswith("train: 61/100, ")
    assert len(lines) == 3


def test_closing_does_not_repeat_the_last_line():
    stream = io.StringIO()
    with Progress(1, "train", every=0.0, stream=stream) as progress:
        progress.update()
    assert len(stream.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    with Progress(4, "craft", stream=stream) as progress:
        progress.update(4)
    assert "craft" in stream.getvalue()
    assert "0/4" in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_disabled_writes_nothing(stream):
    with Progress(4, "craft", enabled=False, every=0.0, stream=stream) as progress:
        progress.update(4)
    assert stream.getvalue() == ""


def test_unknown_total_still_counts():
    stream = io.StringIO()
    with Progress(None, "read", every=0.0, stream=stream) as progress:
        progress.update(7)
    assert stream.getvalue().startswith("read: 7, ")
