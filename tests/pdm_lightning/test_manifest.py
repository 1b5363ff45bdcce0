"""Names of artifacts, and the hash of the source that makes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdm_lightning import manifest
from pdm_lightning.manifest import artifact_key, source_hash


def test_key_is_the_hash_of_the_documented_text() -> None:
    text = (
        '{"kind":"model","parents":{"data":"0123456789abcdef"},"schema":1,"spec":{"a":1,"b":[0.5,null,true]}}'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert artifact_key("model", {"b": (0.5, None, True), "a": 1.0}, {"data": "0123456789abcdef"}) == expected


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def backwards(value: object) -> object:
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), plain, max_size=4))
def test_key_ignores_the_order_of_names_and_survives_json(spec: dict) -> None:
    key = artifact_key("model", spec, {})
    assert artifact_key("model", backwards(spec), {}) == key
    assert artifact_key("model", json.loads(json.dumps(spec)), {}) == key


def test_key_tells_apart_what_differs() -> None:
    parent = "0" * 16
    keys = [
        artifact_key("model", {"a": 1}, {}),
        artifact_key("model", {"a": 2}, {}),
        artifact_key("model", {"a": True}, {}),
        artifact_key("model", {"a": "1"}, {}),
        artifact_key("model", {"a": [1]}, {}),
        artifact_key("model", {"a": None}, {}),
        artifact_key("model", {}, {}),
        artifact_key("other", {"a": 1}, {}),
        artifact_key("model", {"a": 1}, {"data": parent}),
        artifact_key("model", {"a": 1}, {"model": parent}),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("kind", "spec", "parents", "error", "words"),
    [
        ("model", {"a": {"b": float("nan")}}, {}, ValueError, "a.b"),
        ("model", {"a": [1, Path("x")]}, {}, TypeError, r"a\[1\]"),
        ("model", {"a": {1: 2}}, {}, TypeError, "'a' has the name 1"),
        ("../model", {}, {}, ValueError, "names a folder"),
        ("model", {}, {"data": "latest"}, ValueError, "'data'"),
    ],
)
def test_key_refuses_what_it_cannot_name(
    kind: str, spec: dict, parents: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        artifact_key(kind, spec, parents)


def test_source_hash_sees_every_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "some_package_of_a_test"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "a.py", "deep/__init__.py", "deep/b.py"):
        (package / name).write_text(f"# {name}\n")

    def current(*names: str) -> str:
        manifest._module_hash.cache_clear()
        return source_hash(names)

    whole, single = current(package.name), current(f"{package.name}.a")
    assert whole == current(package.name, package.name) and whole != single
    (package / "deep" / "b.py").write_text("x = 1\n")
    assert current(package.name) != whole and current(f"{package.name}.a") == single
    (package / "a.py").write_text("x = 2\n")
    assert current(f"{package.name}.a") != single
    with pytest.raises(ValueError, match="no module 'not_there"):
        current("not_there.at_all")
