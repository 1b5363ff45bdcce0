"""Where embedding mimicry goes: the nearest typical image of each wrong class in turn."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.mimicry import Mimicry, _goals
from attacks.watched_pgd import Run

TOY = runpy.run_path(str(Path(__file__).with_name("watched_toy.py")))
toy = TOY["ToyWatched"]


def goals(target: Any, x: Tensor, restart: int, goal: Tensor | None = None) -> Tensor:
    """The embeddings that mimicry goes to."""
    seen: dict[str, Tensor] = {}

    class Spy(Mimicry):
        def search(self, run: Run, restart_: int) -> None:
            seen["goals"] = _goals(run, restart)

    Spy(targeted=goal is not None, restarts=1)(target, x, y_target=goal)
    return seen["goals"]


def test_mimicry_takes_the_nearest_reference_of_the_next_class() -> None:
    target = toy()
    x, y = target.images(4)
    z = target.module.embed(x).detach()
    for restart in range(7):
        found = goals(target, x, restart)
        for i in range(len(x)):
            gaps = (target.references - z[i]).norm(dim=1)
            per_class = sorted(
                (gaps[target.reference_labels == c].min().item(), c) for c in range(4) if c != y[i]
            )
            gap, label = per_class[restart % 3]
            row = (target.references == found[i]).all(dim=1).nonzero().item()
            assert target.reference_labels[row] == label
            assert gaps[row].item() == pytest.approx(gap)


def test_mimicry_goes_to_its_target() -> None:
    target = toy()
    x, y = target.images(4)
    for restart in range(3):
        found = goals(target, x, restart, (y + 1) % 4)
        rows = [(target.references == goal).all(dim=1).nonzero().item() for goal in found]
        assert torch.equal(target.reference_labels[rows], (y + 1) % 4)


def test_mimicry_passes_over_classes_without_references() -> None:
    target = toy()
    x, y = target.images(2)
    kept = target.reference_labels == 0
    target.references, target.reference_labels = target.references[kept], target.reference_labels[kept]
    found = goals(target, x, 1)
    assert found[y == 0].isnan().all()
    assert found[y != 0].isfinite().all()
    result = Mimicry(iterations=3, restarts=1)(target, x)
    assert torch.equal(result.x_adv[y == 0], x[y == 0])
    assert (result.zero_gradients == result.passes)[y == 0].all()
    target.references, target.reference_labels = target.references[:0], target.reference_labels[:0]
    assert torch.equal(Mimicry(iterations=3, restarts=1)(target, x).x_adv, x)
