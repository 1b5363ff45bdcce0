"""A builder that was taken for dead and wakes up: it harms nobody, and gets the artifact as any other waiter does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning import cleaning, lease, manifest, partial
from pdm_lightning.holder import myself
from pdm_lightning.store import Store, artifact_key
from pdm_lightning.study.rubbish import Rule, find

ROOT = Path(__file__).parents[2]
SPEC = {"n": 0}
KEY = artifact_key("model", SPEC, {})

BUILDER = """
import sys, time
from pathlib import Path
from pdm_lightning import holder, lease
from pdm_lightning.store import Store
root, machine = Path(sys.argv[1]), sys.argv[2]
holder.this_machine = lambda: machine
lease.hold.__wrapped__.__kwdefaults__.update(beat=0.1, stale_after=1.0)
def build(folder):
    print(f"{machine} builds, finds {[path.name for path in folder.iterdir()]}", flush=True)
    for step in range(10 if machine == "two" else 600):
        new = folder / f"{step}.new"  # as batches and checkpoints are written
        new.write_text(machine)
        new.replace(folder / f"{step}.txt")
        time.sleep(0.1)
print(f"{machine} has it from", Store(root).get("model", {"n": 0}, {}, build).file("0.txt").read_text(), flush=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a builder on a machine of that name."""
    begun: list[subprocess.Popen[str]] = []

    def started(machine: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", BUILDER, str(tmp_path), machine]
        begun.append(
            subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return begun[-1]

    yield started
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("awake", ["while the other builds", "after it"])
def test_the_one_who_wakes_up_waits_for_the_other(
    awake: str, start: Callable[[str], Any], tmp_path: Path
) -> None:
    first = start("one")
    assert first.stdout.readline() == "one builds, finds []\n"
    while not (tmp_path / ".partial" / f"model-{KEY}" / "0.txt").exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    second = start("two")
    found = second.stdout.readline()
    assert found.startswith("two builds") and "0.txt" in found  # what was begun is kept
    if awake == "after it":
        assert second.communicate(timeout=60)[0] == "two has it from two\n"
    first.send_signal(signal.SIGCONT)
    said, warned = first.communicate(timeout=60)
    assert said == "one has it from two\n"
    assert "another process has taken over meanwhile" in warned
    second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    artifact = Store(tmp_path).open("model", KEY)
    assert {artifact.file(f"{step}.txt").read_text() for step in range(10)} == {"two"}
    assert not list((tmp_path / ".partial").iterdir())


def test_a_builder_that_crashed_elsewhere_twice_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each taker has the folder under a name of its own; the last of them counts."""
    store, names = Store(tmp_path), list[str]()
    monkeypatch.setitem(lease.hold.__wrapped__.__kwdefaults__, "stale_after", 0.2)  # type: ignore[attr-defined]

    def build(folder: Path) -> None:
        names.append(folder.name)
        (folder / f"{len(names)}.txt").touch()
        if len(names) < 3:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            store.get("model", SPEC, {}, build, source="s")
        elsewhere = replace(myself(), machine="elsewhere")
        store.lease_path("model", KEY).write_text(json.dumps(asdict(elsewhere)))
    (tmp_path / ".partial" / f"model-{KEY}").mkdir()  # by one who was robbed
    assert store.status("model", KEY) == store.survey().status("model", KEY) == "running"
    artifact = store.get("model", SPEC, {}, build, source="s")
    assert names == [f"model-{KEY}", f"model-{KEY}~1", f"model-{KEY}~2"]
    assert sorted(artifact.manifest["files"]) == ["1.txt", "2.txt", "3.txt"]


def test_a_build_that_fails_under_its_own_lease_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Store(tmp_path).get("model", SPEC, {}, lambda folder: (folder / "none" / "a").touch())


def test_nothing_is_published_under_a_lost_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed by hand, say: it is built again, from what is there."""
    store, tried = Store(tmp_path), list[list[str]]()

    def build(folder: Path) -> None:
        tried.append(sorted(path.name for path in folder.iterdir()))
        (folder / "a.txt").touch()
        if len(tried) == 1:
            store.lease_path("model", KEY).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", lambda *_, **__: pytest.fail("published"))
        with pytest.raises(pytest.fail.Exception):
            store.get("model", SPEC, {}, build)
    assert tried == [[], ["a.txt"]]


def test_a_folder_that_was_taken_over_is_listed_and_cleared_with_its_note(
    tmp_path: Path, plant_lease: Callable[..., Path]
) -> None:
    store, taken = Store(tmp_path), tmp_path / ".partial" / f"model-{KEY}~12"
    taken.mkdir(parents=True)
    note = taken.with_name(f"model-{KEY}.source")
    note.write_text("[]")
    assert store.partial_path("model", KEY) == taken
    assert store.survey().status("model", KEY) == store.status("model", KEY) == "partial"
    assert partial.take_over(taken).name == f"model-{KEY}~13"
    old = time.time() + 3600
    assert not find(store.survey(), {"report/a": [KEY]}, Rule(0), old).leftovers
    assert not find(store.survey(), {}, Rule(7200), old).leftovers
    held = plant_lease(tmp_path, f"model-{KEY}", alive=True)
    assert not find(store.survey(), {}, Rule(0), old).leftovers
    held.unlink()
    gone = find(store.survey(), {}, Rule(0), old).leftovers
    assert [left.path.name for left in gone] == [note.name, f"model-{KEY}~13"]
    assert all(cleaning.clear(store, left, 0) for left in gone)
    assert not list((tmp_path / ".partial").iterdir())
