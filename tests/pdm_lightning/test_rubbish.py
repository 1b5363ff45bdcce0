"""What may go from a store: held against what a few lines say of random stores, studies and ages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdm_lightning.store import Store
from pdm_lightning.study.rubbish import Rule, find

Plant = Callable[..., str]
KINDS = ("train", "features", "craft", "score")
LIMIT = 1000.0


@st.composite
def stores(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Artifacts, each made of some of those before it, with what befell them."""
    count = draw(st.integers(1, 9))
    return [
        {
            "kind": draw(st.sampled_from(KINDS)),
            "parents": sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else [],
            "named": draw(st.sampled_from([0, 0, 0, 0, 1, 2])),  # by no study, or by one of two
            "young": draw(st.sampled_from([False, False, False, True])),
            "held": draw(st.sampled_from([False, False, False, False, True])),
            "gone": draw(st.sampled_from([False, False, False, False, False, True])),
            "asked": draw(st.sampled_from([False, False, False, False, True])),
        }
        for i in range(count)
    ]


def expected(made: list[dict[str, Any]]) -> set[int]:
    """Numbers of those that have to stay: the wanted ones, and what they were made of, as far as it is there."""

    def with_parents(number: int) -> set[int]:
        if made[number]["gone"]:
            return set()
        return {number}.union(*(with_parents(parent) for parent in made[number]["parents"]))

    wanted = (i for i, one in enumerate(made) if one["named"] or one["young"] or one["held"] or one["asked"])
    return set[int]().union(*(with_parents(number) for number in wanted))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stores())
def test_what_stays_and_in_which_order_the_rest_goes(
    tmp_path_factory: pytest.TempPathFactory,
    plant: Plant,
    plant_lease: Callable[..., Path],
    made: list[dict[str, Any]],
) -> None:
    root = tmp_path_factory.mktemp("rubbish")
    keys: list[str] = []
    for number, one in enumerate(made):
        parents = {f"p{parent}": keys[parent] for parent in one["parents"]}
        age = 10.0 if one["young"] else 2 * LIMIT
        keys.append(plant(root, one["kind"], {"n": number}, parents, age=age))
        if one["held"]:
            plant_lease(root, f"{one['kind']}-{keys[-1]}", alive=True)
    for number, one in enumerate(made):
        if one["gone"]:
            for path in (root / one["kind"] / keys[number]).iterdir():
                path.unlink()
            (root / one["kind"] / keys[number]).rmdir()
    there = {i for i, one in enumerate(made) if not one["gone"]}
    studies = {f"s{s}": [keys[i] for i, one in enumerate(made) if one["named"] == s] for s in (1, 2)}
    asked = [keys[i] for i, one in enumerate(made) if one["asked"] and not one["gone"]]
    found = find(Store(root).survey(), studies, Rule(LIMIT, asked))
    number = {(one["kind"], keys[i]): i for i, one in enumerate(made)}
    kept, going = {number[name] for name in found.kept}, [number[name] for name in found.artifacts]
    assert kept == expected(made)
    assert sorted(going) == sorted(there - kept)
    # wherever the deleting is cut off, nothing that is left misses what it was made of
    left = set(there)
    for one in going:
        left.discard(one)
        assert all(parent in left for i in left for parent in made[i]["parents"] if parent in there)


def test_why_each_stays(tmp_path: Path, plant: Plant, plant_lease: Callable[..., Path]) -> None:
    train = plant(tmp_path, "train", {"n": 0}, age=9999)
    score = plant(tmp_path, "score", {"n": 1}, {"train": train}, age=9999)
    young = plant(tmp_path, "train", {"n": 2}, age=10)
    asked = plant(tmp_path, "train", {"n": 3}, age=9999)
    held = plant(tmp_path, "train", {"n": 4}, age=9999)
    plant_lease(tmp_path, f"train-{held}", alive=True)
    plant(tmp_path, "train", {"n": 5}, age=9999)
    studies = {"report/a": [score, "0" * 16], "report/b": [score]}
    found = find(Store(tmp_path).survey(), studies, Rule(7200, [asked]))
    assert found.kept == {
        ("train", train): "report/a",
        ("score", score): "report/a",
        ("train", young): "younger than 2.0 h",
        ("train", asked): "--keep",
        ("train", held): "being built",
    }
    assert len(found.artifacts) == 1


def test_damage_is_no_reason_to_lose_what_is_wanted(tmp_path: Path, plant: Plant) -> None:
    """A damaged manifest tells no age and no parents: it stays where a study names it, or it was written just now."""
    named = plant(tmp_path, "train", {"n": 0}, age=9999)
    fresh = plant(tmp_path, "train", {"n": 1}, age=9999)
    old = plant(tmp_path, "train", {"n": 2}, age=9999)
    for key in (named, fresh, old):
        (tmp_path / "train" / key / "manifest.json").write_text("{")
    os.utime(tmp_path / "train" / old, (0, 0))
    found = find(Store(tmp_path).survey(), {"s": [named]}, Rule(60))
    assert found.artifacts == [("train", old)]


def test_leftovers(tmp_path: Path, plant_lease: Callable[..., Path]) -> None:
    """A build goes where nobody works on it, no study would go on with it, and nothing of it was written lately."""
    keys = {what: f"{number:016x}" for number, what in enumerate(("dead", "held", "named", "young"))}
    for what, key in keys.items():
        inner = tmp_path / ".partial" / f"train-{key}" / "checkpoint"
        inner.mkdir(parents=True)
        (inner / "last.ckpt").touch()
        (tmp_path / ".partial" / f"train-{key}.source").touch()
        for path in (inner / "last.ckpt", inner, inner.parent, tmp_path / ".partial" / f"train-{key}.source"):
            os.utime(path, (0, 0))
        plant_lease(tmp_path, f"train-{key}", alive=what == "held")
    os.utime(tmp_path / ".partial" / f"train-{keys['young']}" / "checkpoint" / "last.ckpt")
    (tmp_path / ".trash" / "old").mkdir(parents=True)
    found = find(Store(tmp_path).survey(), {"s": [keys["named"]]}, Rule(60), now=time.time())
    gone = {(left.what, left.path.name) for left in found.leftovers}
    assert gone == {
        ("partial", f"train-{keys['dead']}"),
        ("partial", f"train-{keys['dead']}.source"),
        *(("lease", f"train-{keys[what]}.json") for what in ("dead", "named", "young")),
        ("trash", "old"),
    }
