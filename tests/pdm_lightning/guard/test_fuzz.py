"""A few hundred mutated files, and whether the cage that they are opened in would notice anything."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pdm_lightning.guard import Guard, Preprocessing
from tests.integration.caged import caged
from tests.integration.fuzz import FAULTS, draw_guard, draw_image, fuzz, guards, main


def test_mutated_files_load_or_are_refused(tmp_path: Path) -> None:
    for name in ("made", "cage"):
        (tmp_path / name).mkdir()
    draws = [draw_guard(guards(tmp_path / "made")), draw_image()]
    found = fuzz(draws, 240, 1, tmp_path / "cage")
    assert not [outcome for _, outcome in found if outcome.startswith(FAULTS)], found
    total: Counter[str] = Counter()
    for (name, outcome), n in found.items():
        total[f"{name.split()[0]} {outcome}"] += n
    # both ends are reached: a loader that refused all, or took all, would show nothing
    assert total["guard refused"] > 60
    assert total["guard loaded, same"] + total["guard loaded, signed anew"] > 2
    assert total["image decoded"] > 20
    assert total["image refused"] > 20


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.getcwd, ()


def _sleep(path: Path) -> str:
    time.sleep(60)
    return "done"


def _spin(path: Path) -> str:
    while True:
        pass


def _write(path: Path) -> str:
    (path.parent / "escaped").write_text("x")
    return "done"


ESCAPES: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.read_text(), "text"),
    (lambda path: 1 / 0, "ERROR ZeroDivisionError: division by zero"),
    (lambda path: os.kill(os.getpid(), signal.SIGSEGV), "CRASH SIGSEGV"),
    (lambda path: os.abort(), "CRASH SIGABRT"),
    (_write, "ESCAPE open"),
    (lambda path: os.system("true"), "ESCAPE os.system"),
    (lambda path: subprocess.run(["true"], check=False), "ESCAPE subprocess.Popen"),
    (lambda path: path.unlink(), "ESCAPE os.remove"),
    (lambda path: path.with_name("folder").mkdir(), "ESCAPE os.mkdir"),
    (lambda path: pickle.loads(pickle.dumps(_Evil())), "ESCAPE pickle.find_class"),
    (lambda path: len(bytearray(8 * 2**30)), "MEMORY MemoryError"),
    (lambda path: torch.empty(8 * 2**30), "MEMORY RuntimeError"),
]


@pytest.mark.parametrize(("work", "told"), ESCAPES, ids=[told for _, told in ESCAPES])
def test_the_cage(work: Callable[[Path], object], told: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    assert caged(lambda place: str(work(place)), path).startswith(told)


def _hungry(*_: object) -> None:
    torch.empty(8 * 2**30)


@pytest.mark.parametrize("kind", ["guard", "image"])
def test_refusals_for_want_of_memory_are_faults(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both loaders turn it into a refusal in one line: without a limit the machine would have paid for it."""
    (tmp_path / "made").mkdir()
    (tmp_path / "cage").mkdir()
    draw = draw_image() if kind == "image" else draw_guard(guards(tmp_path / "made"))
    monkeypatch.setattr(Preprocessing, "__call__", _hungry)
    monkeypatch.setattr(Guard, "score", _hungry)
    found = fuzz([draw], 40, 1, tmp_path / "cage")
    faults = [outcome for _, outcome in found if outcome.startswith(FAULTS)]
    assert faults and all(outcome.startswith("MEMORY") for outcome in faults)


@pytest.mark.parametrize("work", [_sleep, _spin])
def test_the_cage_ends_what_hangs(work: Callable[[Path], str], tmp_path: Path) -> None:
    assert caged(work, tmp_path / "file", seconds=1) in ("HANG", "CRASH SIGXCPU", "CRASH SIGKILL")


def test_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # it changes the folder
    assert main(["--count", "30", "--kind", "image", "--seed", "3"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert sum(int(part.split()[0]) for part in last.split("; ")) == 30
