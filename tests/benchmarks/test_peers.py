"""Each adapter on a small trained network: the same parameters reach every library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import figures, peers
from benchmarks.families import FAMILIES
from benchmarks.golden import network
from benchmarks.measure import Options, measure
from benchmarks.subjects import Subject

GOLDEN = Path(__file__).parents[1] / "attacks" / "golden" / "conv.safetensors"
PEERS = ("foolbox", "torchattacks", "art", "cleverhans", "adv_lib")


@pytest.fixture(scope="module")
def subject() -> Subject:
    held = load_file(GOLDEN)
    model = network()
    weights = {name.removeprefix("weights."): v for name, v in held.items() if name.startswith("weights.")}
    model.load_state_dict(weights)
    return Subject(model.eval(), held["x"][:4], held["y"][:4], "conv")


def rows(subject: Subject, family: str, name: str) -> list[Any]:
    peer = peers.adapter(name)
    pytest.importorskip(peer.MODULE)
    few = FAMILIES[family]
    if few.search_steps > 1:
        few = replace(few, search_steps=5, iterations=30)
    return measure(
        few,
        peers.entries(few, [name]),
        subject,
        Options(rounds=0, alone=0, trainable=False),
        lambda text: None,
    )


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("family", ["fgsm", "bim"])
def test_sign_attacks_agree(subject: Subject, family: str, name: str) -> None:
    engine, exact, *theirs = rows(subject, family, name)
    assert len(theirs) == (0 if (name, family) == ("adv_lib", "fgsm") else 1)
    assert [row.error for row in (engine, exact, *theirs)] == [""] * (2 + len(theirs))
    for row in theirs:
        assert row.faults == []
        assert row.backwards == exact.backwards == engine.backwards == FAMILIES[family].iterations
        if name == "adv_lib":  # returns the clean image where it finds no success
            assert row.verdict.linf.max() <= 0.1 + 1e-6
        else:
            assert torch.allclose(row.verdict.lead, exact.verdict.lead, atol=1e-4)
            assert row.verdict.linf.tolist() == pytest.approx([0.1] * 4, abs=1e-6)


@pytest.mark.parametrize("name", ["foolbox", "torchattacks", "adv_lib"])
@pytest.mark.parametrize(("family", "far"), [("cw", 1.3), ("l2", 1.3), ("linf", 0.3)])
def test_distances_are_of_one_size(subject: Subject, family: str, far: float, name: str) -> None:
    """C&W's own mean L2 on these images is .84; a library's poorer methods may fail in so few steps."""
    found = [row for row in rows(subject, family, name) if not row.entry.path]
    assert found
    assert [row.error for row in found] == [""] * len(found)
    best = min(found, key=lambda row: (-figures.success(row), figures.mean(row, FAMILIES[family].norm)))
    assert figures.success(best) == 1
    assert best.backwards >= 20
    assert figures.mean(best, FAMILIES[family].norm) < far


@pytest.mark.parametrize("name", ["torchattacks", "art"])
def test_jsma_stays_at_a_tenth_of_the_pixels(subject: Subject, name: str) -> None:
    engine, exact, theirs = rows(subject, "jsma", name)
    for row in (engine, exact, theirs):
        assert row.error == ""
        assert row.verdict.l0.max() <= 8  # four pairs of 64 pixels
    assert torch.equal(engine.verdict.won, exact.verdict.won)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert peers.missing(["art", "adv_lib"]) == ["adversarial-robustness-toolbox", "adv-lib"]
    assert {entry.library for entry in peers.entries(FAMILIES["bim"])} == {"ours"}


def test_our_smallest_distance_runs_in_both_qualities(subject: Subject) -> None:
    entries = peers.entries(FAMILIES["l2"], [])
    assert [entry.path for entry in entries] == ["engine", "exact"] * 2
    found = measure(
        FAMILIES["l2"], entries, subject, Options(rounds=0, alone=0, trainable=False), lambda text: None
    )
    assert [row.error for row in found] == [""] * 4
    assert figures.success(found[0]) == 1
    assert found[2].backwards > found[0].backwards
