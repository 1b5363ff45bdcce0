"""What a kill or a power cut leaves of a build is made good by the next one, and never published."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pdm_lightning import durable, manifest
from pdm_lightning.store import Store, artifact_key

SPEC = {"n": 0}
KEY = artifact_key("model", SPEC, {})


class Killed(BaseException):
    """Stands for a kill at one point."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def note(store: Store) -> Path:
    return store.partial_path("model", KEY).with_name(f"model-{KEY}.source")


def write_hello(folder: Path) -> None:
    (folder / "hello.txt").write_text("hello")


def begin(store: Store, source: str = "s") -> None:
    """A build that is killed when it has written a file."""

    def half(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise Killed

    with pytest.raises(Killed):
        store.get("model", SPEC, {}, half, source=source)


def test_killed_while_the_manifest_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == "manifest.json":
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", killed)
        store.get("model", SPEC, {}, write_hello)
    assert len(list(store.partial_path("model", KEY).iterdir())) == 2
    artifact = store.get("model", SPEC, {}, write_hello)
    assert list(artifact.manifest["files"]) == ["hello.txt"]
    assert sorted(path.name for path in artifact.path.iterdir()) == ["hello.txt", "manifest.json"]
    manifest._verified.clear()  # as in a new process
    assert Store(store.root).open("model", KEY).file("hello.txt")


@pytest.mark.parametrize("name", [".tmpa1B2c3", "x.safetensors.new", "00000000.part", "last.tmp"])
def test_half_written_files_are_not_part_of_an_artifact(store: Store, name: str) -> None:
    found: list[str] = []

    def killed(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / name).write_text("ha")
        raise Killed

    def build(folder: Path) -> None:
        found.extend(path.name for path in (folder / "inner").iterdir())
        (folder / name).touch()
        write_hello(folder)

    with pytest.raises(Killed):
        store.get("model", SPEC, {}, killed)
    artifact = store.get("model", SPEC, {}, build)
    assert found == []
    assert list(artifact.manifest["files"]) == ["hello.txt"]


def test_the_note_of_a_build_is_written_once(store: Store, note: Path) -> None:
    begin(store)
    before = note.stat()
    begin(store)
    assert (note.stat().st_ino, note.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert store.get("model", SPEC, {}, write_hello, source="s").file("half.txt")
    assert not note.exists()


@pytest.mark.parametrize("text", ["", '["s", {"train": "01', "null", "[1]"])
def test_a_note_that_cannot_be_read_is_none(store: Store, note: Path, text: str) -> None:
    """Nobody can tell what was begun there: it is begun anew."""
    begin(store)
    note.write_text(text)
    artifact = store.get("model", SPEC, {}, write_hello, source="s")
    assert list(artifact.manifest["files"]) == ["hello.txt"]


def test_a_note_is_whole_or_as_it_was(store: Store, note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(store, source="old")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(durable, "sync", lambda path: (_ for _ in ()).throw(Killed))
        Store(store.root, on_stale="rebuild").get("model", SPEC, {}, write_hello, source="new")
    assert json.loads(note.read_text()) == ["old", {}]


def test_text_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace = os.replace
    monkeypatch.setattr(durable, "sync", lambda path: done.append(f"sync {path.name}"))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append("replace") or replace(a, b))  # type: ignore[func-returns-value]
    durable.write_text(tmp_path / "a.txt", "a")
    assert done == ["sync a.txt.new", "replace", f"sync {tmp_path.name}"]
    assert [path.read_text() for path in tmp_path.iterdir()] == ["a"]
