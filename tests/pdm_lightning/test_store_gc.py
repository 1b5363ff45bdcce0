"""``pdml store gc``: nothing without ``--yes``, nothing that somebody builds, nothing that a study has on record."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning import cleaning
from pdm_lightning.cli import main
from pdm_lightning.lease import is_held
from pdm_lightning.report import read_csv
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.kept import named
from pdm_lightning.study.plan import ancestry, make_plan
from pdm_lightning.study.store_commands import store

Plant = Callable[..., str]
Capture = pytest.CaptureFixture[str]
OLD = 40 * 86400.0

BUILDS = """
import sys, time
from pathlib import Path
from pdm_lightning.store import Store

def build(folder):
    (folder / "half.bin").write_bytes(b"0" * 1000)
    print("building", flush=True)
    time.sleep(600)

Store(sys.argv[1]).get("train", {"n": int(sys.argv[2])}, {}, build)
"""


def builder(root: Path, number: int) -> subprocess.Popen[str]:
    """A process that is in the middle of building an artifact."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDS, str(root), str(number)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    return process


def record(output: Path, study: str, *keys: str) -> Path:
    """A study that has artifacts on record."""
    path = output / study / "artifacts" / "study.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"any/{key}\n" for key in keys))
    return path


def gc(output: Path, *words: str) -> int:
    return main(["store", "gc", f"--output={output}", *words])


def keys(output: Path) -> set[str]:
    return {key for _, key in Store(output / "store").survey().names}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def test_a_dry_run_tells_and_deletes_nothing(output: Path, plant: Plant, capsys: Capture) -> None:
    root = output / "store"
    train = plant(root, "train", {"n": 0}, age=OLD)
    score = plant(root, "score", {"n": 1}, {"train": train}, age=OLD)
    other = plant(root, "score", {"n": 2}, {"train": train}, age=OLD)
    young = plant(root, "score", {"n": 3}, age=60)
    record(output, "report/table2", score)
    before = sorted(root.rglob("*"))
    assert gc(output) == 0
    told = capsys.readouterr().out
    assert sorted(root.rglob("*")) == before
    lines = [line.split() for line in told.splitlines()]
    assert lines[0] == ["kept:", "3", "artifacts,", "48", "B"]
    assert ["report/table2", "2", "32", "B"] in lines
    assert ["younger", "than", "30.0", "d", "1", "16", "B"] in lines
    assert ["score", other, "16", "B", "40.0", "d"] in lines
    assert "to delete: 1 artifact, 16 B" in told
    assert f"pdml store gc --output={output} --yes deletes them" in told
    assert young not in told
    assert gc(output, "--yes") == 0
    assert "freed 16 B" in capsys.readouterr().out
    assert keys(output) == {train, score, young}
    assert gc(output, "--yes") == 0
    assert "nothing to delete" in capsys.readouterr().out
    assert gc(output, "--yes", "--older-than", "0", "--keep", young) == 0
    assert keys(output) == {train, score, young}
    assert gc(output, "--yes", "--older-than", "0") == 0
    assert keys(output) == {train, score}
    assert not list((root / ".trash").iterdir())


def test_killed_builders_and_living_ones(output: Path, capsys: Capture) -> None:
    """What a killed process left goes; what a living one builds stays, and is published afterwards."""
    root = output / "store"
    dead, alive = builder(root, 0), builder(root, 1)
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert main(["store", "ls", "--output", str(output)]) == 0
        told = capsys.readouterr().out
        assert told.count("build that nobody works on") == 2  # the folder, and the note beside it
        assert told.count("lease of a dead process") == 1
        assert told.count("being built") == 2
        assert told.count("lease, held") == 1
        assert gc(output, "--older-than", "0", "--yes") == 0
        left = [path.name for path in (root / ".partial").iterdir()]
        assert len(left) == 2
        (lease,) = (path for path in (root / ".locks").iterdir() if path.suffix == ".json")
        assert is_held(lease)
        assert (root / ".partial" / lease.stem / "half.bin").is_file()
    finally:
        alive.kill()
        alive.wait()
        dead.stdout.close()  # type: ignore[union-attr]
        alive.stdout.close()  # type: ignore[union-attr]
    assert gc(output, "--older-than", "0", "--yes") == 0
    assert not list((root / ".partial").iterdir())


def test_a_build_that_was_given_up_lately_is_taken_up(output: Path) -> None:
    """Younger than the age, a killed build stays, note and all, so that the next one goes on with it."""
    process = builder(output / "store", 0)
    process.kill()
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    assert gc(output, "--yes") == 0

    def finish(folder: Path) -> None:
        assert (folder / "half.bin").stat().st_size == 1000

    assert Store(output / "store").get("train", {"n": 0}, {}, finish).file("half.bin").is_file()


def test_nothing_is_deleted_while_a_build_is_on_no_record(
    output: Path, plant: Plant, plant_lease: Callable[..., Path], capsys: Capture
) -> None:
    """What it is made of cannot be told, so it might be anything."""
    root = output / "store"
    old, held = plant(root, "train", {"n": 0}, age=OLD), "f" * 16
    record(output, "report/a", "0" * 16)
    lease = plant_lease(root, f"score-{held}", alive=True)
    assert gc(output) == 0
    assert f"score-{held} is being built, and no study has it on record" in capsys.readouterr().out
    assert gc(output, "--yes") == 2
    assert keys(output) == {old}
    record(output, "report/b", held)
    assert gc(output, "--yes") == 0
    assert keys(output) == set()
    assert lease.is_file()


def test_a_machine_whose_clock_is_behind_is_heeded(
    output: Path, plant: Plant, plant_lease: Callable[..., Path], capsys: Capture
) -> None:
    """A builder elsewhere whose heartbeats look ten minutes old: nothing that it might need goes."""
    root = output / "store"
    old = plant(root, "train", {"n": 0}, age=OLD)
    record(output, "report/a", "0" * 16)
    lease = plant_lease(root, f"score-{'f' * 16}", alive=True)
    lease.write_text(json.dumps(json.loads(lease.read_text()) | {"machine": "elsewhere"}))
    os.utime(lease, (time.time() - 600,) * 2)
    assert gc(output, "--yes") == 2
    assert "is being built" in capsys.readouterr().err
    assert keys(output) == {old}
    os.utime(lease, (time.time() - 7200,) * 2)
    assert gc(output, "--yes") == 0
    assert keys(output) == set()


def test_without_any_study_it_takes_a_word_more(output: Path, plant: Plant, capsys: Capture) -> None:
    old = plant(output / "store", "train", {"n": 0}, age=OLD)
    assert gc(output) == 0
    assert gc(output, "--yes") == 2
    error = capsys.readouterr().err
    assert error.startswith("pdml: no study is on record")
    assert error.count("\n") == 1
    assert keys(output) == {old}
    assert gc(output, "--yes", "--without-studies") == 0
    assert keys(output) == set()


def test_a_study_that_begins_meanwhile_keeps_its_artifacts(
    output: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    root = output / "store"
    trains = [plant(root, "train", {"n": n}, age=OLD) for n in range(4)]
    scores = [plant(root, "score", {"n": n}, {"train": key}, age=OLD) for n, key in enumerate(trains)]
    record(output, "report/a")
    delete = cleaning.delete

    def and_then(store: Store, kind: str, key: str) -> bool:
        gone = delete(store, kind, key)
        number = scores.index(key) if key in scores else trains.index(key)
        record(output, "report/b", scores[(number + 1) % 4])  # of what is not deleted yet
        monkeypatch.setattr(cleaning, "delete", delete)
        return gone

    monkeypatch.setattr(cleaning, "delete", and_then)
    assert gc(output, "--yes") == 0
    assert "2 things stayed" in capsys.readouterr().out
    (wanted,) = named(output)[output / "report" / "b"]
    assert keys(output) == {wanted, trains[scores.index(wanted)]}


def test_a_build_that_begins_meanwhile_is_left_alone(
    output: Path, plant: Plant, plant_lease: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = output / "store"
    key = plant(root, "train", {"n": 0}, age=OLD)
    record(output, "report/a")
    delete = cleaning.delete

    def taken(store: Store, kind: str, key: str) -> bool:
        plant_lease(root, f"{kind}-{key}", alive=True)
        return delete(store, kind, key)

    monkeypatch.setattr(cleaning, "delete", taken)
    assert gc(output, "--yes") == 0
    assert keys(output) == {key}


def test_a_record_that_cannot_be_read_stops_it(
    output: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows then what the study rests on."""
    old = plant(output / "store", "train", {"n": 0}, age=OLD)
    record(output, "report/a")

    def refused(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert gc(output, "--yes") == 2
    assert keys(output) == {old}


def test_a_finished_study_loses_nothing_and_a_dropped_one_everything(tiny_study: Any, tmp_path: Path) -> None:
    """A real study: its report names every node of its plan, and without its folder all of them may go."""
    output = tmp_path / "copy"
    shutil.copytree(tiny_study.pristine, output)
    plan = {node.key: node for node in make_plan(ask("plan", list(tiny_study.words)))}
    assert named(output)[output / "report" / "tiny"] >= set(plan)
    assert gc(output, "--older-than", "0", "--yes") == 0
    assert keys(output) == set(plan)
    # an older report names what its rows come from: what these were made of stays, what stands beside them goes
    shutil.rmtree(output / "report" / "tiny" / "artifacts")
    rows = {row.artifact for row in read_csv(output / "report" / "tiny" / "results.csv")} & set(plan)
    assert gc(output, "--older-than", "0", "--yes") == 0
    assert keys(output) == {node.key for key in rows for node in ancestry(plan[key])}
    shutil.rmtree(output / "report")
    assert gc(output, "--older-than", "0", "--yes", "--without-studies") == 0
    assert keys(output) == set()


def test_remote_leases_are_left_for_an_hour(output: Path, plant_lease: Callable[..., Path]) -> None:
    """Clocks of machines differ: what is silent for two minutes may be alive."""
    root = output / "store"
    path = plant_lease(root, "train-" + "0" * 16, alive=True)
    path.write_text(path.read_text().replace('"machine": "', '"machine": "another '))
    now = time.time()
    os.utime(path, (now - 120, now - 120))
    assert gc(output, "--older-than", "0", "--yes") == 0
    assert path.is_file()
    os.utime(path, (now - 4000, now - 4000))
    assert gc(output, "--older-than", "0", "--yes") == 0
    assert not path.is_file()


def test_the_line_of_a_dry_run_can_be_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gc", "--older-than=0", "--without-studies", f"paths.output={tmp_path}"]
    Store(tmp_path / "store").get(
        "train", {"a": 1}, {}, lambda place: (place / "x").write_bytes(b"1") and None
    )
    assert store(words) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == f"this was a dry run: pdml store {' '.join(words)} --yes deletes them"
    typed = shlex.split(told.partition(": pdml store ")[2].removesuffix(" deletes them"))
    assert store(typed) == 0
    assert not list(Store(tmp_path / "store").list())
