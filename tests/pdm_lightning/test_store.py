"""Building and reading artifacts, and what the store does when they are stale or damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pdm_lightning import manifest
from pdm_lightning.store import CorruptArtifact, Store, StoreFull, artifact_key

SPEC = {"lr": 0.1, "layers": [1, 2], "name": "x"}


def write_hello(folder: Path) -> None:
    (folder / "hello.txt").write_text("hello")
    (folder / "inner").mkdir(exist_ok=True)
    (folder / "inner" / "value.json").write_text('{"value": 3}')


def never(folder: Path) -> None:
    raise AssertionError("this was to come from the store")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# --- building and reading


def test_build_once_then_read(store: Store) -> None:
    parents = {"data": "f" * 16}
    first = store.get("model", SPEC, parents, write_hello, source="abc")
    again = store.get("model", SPEC, parents, never, source="abc")
    assert again.path == first.path == store.root / "model" / artifact_key("model", SPEC, parents)
    assert again.file("hello.txt").read_text() == "hello"
    assert again.json("inner/value.json") == {"value": 3}
    record = again.manifest
    assert record["files"]["hello.txt"] == {
        "size": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }
    assert (record["spec"], record["parents"], record["source"]) == (SPEC, parents, "abc")
    assert set(record["files"]) == {"hello.txt", "inner/value.json"}
    with pytest.raises(FileNotFoundError, match=r"no file 'other'; it holds: hello\.txt"):
        again.file("other")


def test_reading_needs_no_right_to_write(store: Store) -> None:
    key = store.get("model", SPEC, {}, write_hello).key
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    other = Store(store.root)
    other.get("model", SPEC, {}, never)
    assert other.status("model", key) == "cached"
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before


def test_status_of_every_stage(store: Store) -> None:
    key = artifact_key("model", SPEC, {})
    seen = [store.status("model", key, "s")]
    assert not store.root.exists()

    def build(folder: Path) -> None:
        seen.append(store.status("model", key, "s"))
        write_hello(folder)
        if len(seen) == 2:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        store.get("model", SPEC, {}, build, source="s")
    seen.append(store.status("model", key, "s"))
    store.get("model", SPEC, {}, build, source="s")
    seen += [store.status("model", key, source) for source in ("s", "", "t")]
    assert seen == ["missing", "running", "partial", "running", "cached", "cached", "stale"]


def test_a_failed_build_is_continued(store: Store) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("model", SPEC, {}, fail)

    def finish(folder: Path) -> None:
        (folder / "whole").write_text((folder / "half").read_text() + "2")

    assert store.get("model", SPEC, {}, finish).file("whole").read_text() == "12"
    assert not list((store.root / ".partial").iterdir())


def test_an_empty_build_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="wrote no file"):
        store.get("model", SPEC, {}, lambda folder: None)


def test_links_are_left_out(store: Store) -> None:
    def build(folder: Path) -> None:
        write_hello(folder)
        (folder / "latest").symlink_to("hello.txt")

    artifact = store.get("model", SPEC, {}, build)
    assert "latest" not in artifact.manifest["files"] and not (artifact.path / "latest").exists()


def test_find_and_list(store: Store) -> None:
    keys = sorted(store.get("model", {"n": n}, {}, write_hello).key for n in range(20))
    other = store.get("score", {}, {}, write_hello)
    assert [(a.kind, a.key) for a in store.list()] == [("model", key) for key in keys] + [
        ("score", other.key)
    ]
    assert store.find(keys[3]).key == keys[3]
    assert store.find(f"score/{other.key[:3]}").key == other.key
    with pytest.raises(FileNotFoundError, match="begins with 'xyz'"):
        store.find("xyz")
    with pytest.raises(ValueError, match="beginning of 20 keys"):
        store.find("model/")
    with pytest.raises(FileNotFoundError, match="holds no artifact"):
        store.open("model", "0" * 16)


# --- stale artifacts


def test_stale_is_used_and_said(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.get("model", SPEC, {}, write_hello, source="old")
    for _ in range(2):
        assert store.get("model", SPEC, {}, never, source="new").manifest["source"] == "old"
    assert caplog.text.count("was built by other source") == 1


def test_stale_is_rebuilt_where_asked(store: Store) -> None:
    store.get("model", SPEC, {}, write_hello, source="old")
    again = Store(store.root, on_stale="rebuild").get(
        "model", SPEC, {}, lambda folder: (folder / "new").touch(), source="new"
    )
    assert again.manifest["source"] == "new" and list(again.manifest["files"]) == ["new"]
    assert not list((store.root / ".trash").iterdir())
    with pytest.raises(ValueError, match="on_stale='never'"):
        Store(store.root, on_stale="never")


@pytest.mark.parametrize(("on_stale", "kept"), [("warn", True), ("rebuild", False)])
def test_partial_work_of_other_source(tmp_path: Path, on_stale: str, kept: bool) -> None:
    store = Store(tmp_path, on_stale=on_stale)

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.get("model", SPEC, {}, fail, source="old")
    artifact = store.get("model", SPEC, {}, write_hello, source="new")
    assert ("half" in artifact.manifest["files"]) is kept
    # what was continued is owed to the source that began it
    assert artifact.manifest["source"] == ("old" if kept else "new")
    assert store.status("model", artifact.key, "new") == ("stale" if kept else "cached")


@pytest.mark.parametrize("on_stale", ["warn", "rebuild"])
def test_a_child_of_a_rebuilt_parent_is_rebuilt(tmp_path: Path, on_stale: str) -> None:
    """A parent that was deleted, or is stale, and is built anew with another content."""
    store = Store(tmp_path, on_stale=on_stale)

    def writes(text: str) -> Callable[[Path], None]:
        return lambda folder: (folder / "hello.txt").write_text(text) and None

    parent = store.get("model", SPEC, {}, writes("one"))
    child = store.get("features", SPEC, {"model": parent.key}, writes("from one"))
    assert (
        store.get("features", SPEC, {"model": parent.key}, writes("again")).file("hello.txt").read_text()
        == "from one"
    )
    shutil.rmtree(parent.path)
    assert store.status("features", child.key) == "cached"  # nothing contradicts it
    store.get("model", SPEC, {}, writes("two"))
    assert store.status("features", child.key) == "orphaned"
    anew = store.get("features", SPEC, {"model": parent.key}, writes("from two"))
    assert anew.file("hello.txt").read_text() == "from two"
    assert store.status("features", child.key) == "cached"


def test_a_damaged_manifest_is_a_status(store: Store) -> None:
    artifact = store.get("model", SPEC, {}, write_hello)
    (artifact.path / "manifest.json").write_text("{")
    assert store.status("model", artifact.key) == "corrupt"


# --- damage


def forget() -> None:
    """As in a new process: no hash has been checked yet."""
    manifest._verified.clear()


def test_damage_is_found(store: Store) -> None:
    artifact = store.get("model", SPEC, {}, write_hello)
    file = artifact.path / "hello.txt"
    file.write_text("hello!")
    with pytest.raises(CorruptArtifact, match=r"6 bytes instead of 5; delete that folder and run again"):
        store.open("model", artifact.key)
    file.write_text("hellO")
    forget()
    with pytest.raises(CorruptArtifact, match=r"content of 'hello\.txt' has changed"):
        store.get("model", SPEC, {}, never)
    file.unlink()
    with pytest.raises(CorruptArtifact, match=r"'hello\.txt' is missing"):
        store.open("model", artifact.key)


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "model"}'])
def test_a_damaged_manifest_is_found(store: Store, text: str) -> None:
    artifact = store.get("model", SPEC, {}, write_hello)
    (artifact.path / "manifest.json").write_text(text)
    with pytest.raises(CorruptArtifact, match="its manifest is damaged"):
        store.open("model", artifact.key)


def test_a_manifest_of_something_else_is_found(store: Store) -> None:
    artifact = store.get("model", SPEC, {}, write_hello)
    path = artifact.path / "manifest.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"spec": {"lr": 0.2}}))
    with pytest.raises(CorruptArtifact, match="do not lead to its key"):
        store.open("model", artifact.key)
    path.write_text(json.dumps(record | {"key": "0" * 16}))
    with pytest.raises(CorruptArtifact, match="that of model/0000000000000000"):
        store.open("model", artifact.key)


def test_a_full_disk_is_one_clear_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        (folder / "half").touch()
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("a library's own words") from error

    with pytest.raises(StoreFull, match="no space left for") as caught:
        store.get("model", SPEC, {}, full)
    assert caught.value.errno == errno.ENOSPC
    assert store.status("model", artifact_key("model", SPEC, {})) == "partial"

    def no_sync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StoreFull):
        patch.setattr(os, "fsync", no_sync)
        store.get("model", SPEC, {}, write_hello)
    assert store.status("model", artifact_key("model", SPEC, {})) == "partial"
    assert store.get("model", SPEC, {}, write_hello).file("half")


def test_killed_between_manifest_and_rename(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        store.get("model", SPEC, {}, write_hello)
    assert store.get("model", SPEC, {}, never).file("hello.txt")
