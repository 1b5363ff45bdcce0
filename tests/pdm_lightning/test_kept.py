"""What a study has on record: noted before anything is computed, and as long as its folder is there."""

from __future__ import annotations

import logging
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.cli import main
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.kept import named, remember, signature
from pdm_lightning.study.plan import Node, make_plan

SEARCH = runpy.run_path(str(Path(__file__).with_name("tiny_search.py")))


def node(number: int) -> Node:
    return Node("train", {"n": number})


def test_what_is_noted_is_named(tmp_path: Path) -> None:
    study = tmp_path / "report" / "a"
    before = signature(tmp_path)
    remember([node(0), node(1)], study)
    assert signature(tmp_path) != before
    remember([node(2)], study, "more")
    assert named(tmp_path) == {study: {node(n).key for n in range(3)}}
    remember([node(3)], study, "more")
    assert named(tmp_path) == {study: {node(n).key for n in (0, 1, 3)}}
    remember([node(4)], tmp_path / "tune" / "b")
    assert set(named(tmp_path)) == {study, tmp_path / "tune" / "b"}
    assert named(tmp_path / "elsewhere") == {}


def test_commands_of_the_same_name_keep_what_each_rests_on(tmp_path: Path) -> None:
    """Such as all that are given no name; the same command again notes nothing new."""
    study = tmp_path / "report" / "study"
    for _ in range(2):
        remember([node(0), node(1)], study)
        remember([node(1), node(2)], study)
    assert named(tmp_path) == {study: {node(n).key for n in range(3)}}
    assert len(list((study / "artifacts").iterdir())) == 2


def test_keys_are_found_in_older_records_and_nothing_else_is(tmp_path: Path) -> None:
    """A report's rows and a search's journal; a longer hash, as of a file, is no key."""
    for place, text in (
        ("report/a/results.csv", "metric,artifact\nauc,0123456789abcdef\n"),
        ("tune/b/journal.log", '{"trainings": ["fedcba9876543210"], "sha256": "' + "a" * 64 + '"}\n'),
        ("report/c/index.html", "1111111111111111"),
    ):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert named(tmp_path) == {
        tmp_path / "report" / "a": {"0123456789abcdef"},
        tmp_path / "tune" / "b": {"fedcba9876543210"},
    }


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_run_notes_its_plan_before_it_computes(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data=digits", "attack=fgsm", "budget=smoke", "name=mine", f"paths.output={tmp_path}"]
    seen: list[frozenset[str]] = []

    def stopped(*_: Any, **_more: Any) -> None:
        seen.extend(named(tmp_path).values())
        raise KeyboardInterrupt

    monkeypatch.setattr("pdm_lightning.study.commands.execute", stopped)
    assert main([command, *words]) == 130
    plan = make_plan(ask("plan", [*words, "card.run=all"] if command == "check" else words))
    assert seen == [{node.key for node in plan}]
    assert main(["plan", *words, "name=other"]) == 0
    assert set(named(tmp_path)) == {tmp_path / "report" / "mine"}


@pytest.fixture
def as_before() -> Iterator[None]:
    """A search silences the store's log for the rest of its process."""
    log = logging.getLogger("pdm_lightning.store")
    level = log.level
    yield
    log.setLevel(level)


@pytest.mark.usefixtures("as_before")
def test_a_search_keeps_what_it_has_trained(tmp_path: Path) -> None:
    assert SEARCH["search"](tmp_path, "tune.trials=2", "tune.record=[val_auc]", "attack=fgsm_010") == 0
    keys = {key for _, key in Store(tmp_path / "store").survey().names}
    assert named(tmp_path)[tmp_path / "tune" / "tiny"] >= keys
    assert main(["store", "gc", "--output", str(tmp_path), "--older-than", "0", "--yes"]) == 0
    assert {key for _, key in Store(tmp_path / "store").survey().names} == keys
