"""Sizes, times and tables as people read them."""

from __future__ import annotations

import logging

import pytest

from pdm_lightning.spoken import duration, quiet, several, size, table


def test_a_table_is_as_wide_as_its_entries() -> None:
    rows = [("train", "5", "a b"), ("x", "1,234", "")]
    assert table(("stage", "passes", "what"), rows, right=("passes",)) == [
        "stage  passes  what",
        "train       5  a b",
        "x       1,234",
    ]
    assert table(("stage", "passes", "what"), rows, left_out=("passes",)) == [
        "stage  what",
        "train  a b",
        "x",
    ]
    assert table(("stage", "what"), []) == ["stage  what"]


def test_words() -> None:
    told = ["0.0 s", "9.9 s", "12 s", "1.5 min", "1.5 h", "47.0 h", "3.0 d"]
    assert [duration(s) for s in (0.04, 9.9, 12.4, 90, 5400, 47 * 3600, 72 * 3600)] == told
    sizes = (0, 999, 1000, 1_440, 22_960_000, 1.2e9, 3e15)
    assert [size(n) for n in sizes] == ["0 B", "999 B", "1.0 kB", "1.4 kB", "23.0 MB", "1.2 GB", "3000.0 TB"]
    counted = [several(1, "artifact"), several(1200, "artifact"), several(0, "build")]
    assert counted == ["1 artifact", "1,200 artifacts", "0 builds"]
    assert several(2, "study", "studies") == "2 studies"


def test_quiet_loggers_say_errors_only_and_speak_again_after_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("pdm_lightning.spoken.test")
    log.setLevel(logging.WARNING)
    with pytest.raises(RuntimeError), quiet("pdm_lightning.spoken.test"):
        log.warning("not this")
        log.error("this")
        raise RuntimeError
    log.warning("and this")
    assert [record.message for record in caplog.records] == ["this", "and this"]
