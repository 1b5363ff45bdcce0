"""A survey of a store says of each artifact what the store says of it, with one look instead of many."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdm_lightning.manifest import read as _read
from pdm_lightning.store import Store, artifact_key
from pdm_lightning.survey import Survey


def write(folder: Path) -> None:
    (folder / "x.txt").write_text("x")


def key_of(kind: str, number: int) -> str:
    return artifact_key(kind, {"n": number}, {})


def test_nothing_there(tmp_path: Path) -> None:
    survey = Survey(tmp_path / "nowhere")
    assert survey.status("model", "0" * 16) == "missing"
    assert (survey.names, survey.leftovers()) == ([], [])
    assert not list(tmp_path.iterdir())


#: What can befall an artifact, its parent and its name; each is done where its flag is set.
EVENTS = (
    "built",
    "rebuilt_parent",
    "no_parent",
    "no_manifest",
    "damaged",
    "held",
    "dead",
    "begun",
    "bad_parent",
)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(EVENTS)), st.sampled_from(["", "now", "then"]))
def test_the_same_word_as_the_store(
    tmp_path_factory: pytest.TempPathFactory, plant_lease: Callable[..., Path], events: set[str], source: str
) -> None:
    store = Store(tmp_path_factory.mktemp("survey"))
    parent = store.get("model", {"n": 0}, {}, write, source="now")
    parents = {"model": parent.key}
    key = artifact_key("score", {"n": 1}, parents)
    if "built" in events:
        store.get("score", {"n": 1}, parents, write, source="now")
    if "rebuilt_parent" in events:
        shutil.rmtree(parent.path)
        store.get(
            "model", {"n": 0}, {}, lambda folder: (folder / "y.txt").write_text("y") and None, source="now"
        )
    if "no_parent" in events:
        shutil.rmtree(parent.path)
    if "bad_parent" in events and parent.path.is_dir():
        (parent.path / "manifest.json").write_text("{")
    folder = store.path("score", key)
    if "no_manifest" in events and folder.is_dir():
        (folder / "manifest.json").unlink()
    if "damaged" in events and folder.is_dir():
        (folder / "manifest.json").write_text("[]")
    if "begun" in events:
        store.partial_path("score", key).mkdir(parents=True)
    if {"held", "dead"} & events:
        plant_lease(store.root, f"score-{key}", alive="held" in events)
    survey = store.survey()
    assert survey.status("score", key, source) == store.status("score", key, source)
    assert survey.status("model", parent.key, source) == store.status("model", parent.key, source)
    assert survey.status("model", "0" * 16) == "missing"


def test_names_are_those_of_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(7):
        store.get(("model", "score")[number % 2], {"n": number}, {}, write)
    (tmp_path / "note.txt").touch()
    assert store.survey().names == [(a.kind, a.key) for a in store.list()]


def test_leftovers(tmp_path: Path, plant_lease: Callable[..., Path]) -> None:
    store = Store(tmp_path)
    store.get("model", {"n": 0}, {}, write)
    assert store.survey().leftovers() == []  # the lock that leases are made under is no leftover

    def fail(folder: Path) -> None:
        raise RuntimeError

    for number in (1, 2):
        with pytest.raises(RuntimeError):
            store.get("model", {"n": number}, {}, fail)
    names = [f"model-{key_of('model', number)}" for number in (1, 2)]
    plant_lease(tmp_path, names[0], alive=True)
    plant_lease(tmp_path, "other-x", alive=False)
    os.makedirs(tmp_path / ".trash" / "old")
    found = {(left.what, left.path.name, left.held) for left in store.survey().leftovers()}
    assert found == {
        ("partial", names[0], True),
        ("partial", f"{names[0]}.source", True),
        ("partial", names[1], False),
        ("partial", f"{names[1]}.source", False),
        ("lease", f"{names[0]}.json", True),
        ("lease", "other-x.json", False),
        ("trash", "old", False),
    }


def test_a_survey_looks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each manifest is read once, however many children ask for it, and no folder is listed again."""
    store = Store(tmp_path)
    parent = store.get("model", {}, {}, write)
    keys = [store.get("score", {"n": n}, {"model": parent.key}, write).key for n in range(5)]
    survey, read = store.survey(), []
    monkeypatch.setattr("pdm_lightning.survey.manifest.read", lambda f, r=_read: read.append(f) or r(f))
    assert {survey.status("score", key) for key in keys} == {"cached"}
    shutil.rmtree(tmp_path)
    assert {survey.status("score", key) for key in keys} == {"cached"}
    assert len(read) == 6
