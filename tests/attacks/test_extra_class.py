"""The classifier with a class more: it wins exactly where the detector raises its alarm."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attacks import BIM, Look
from attacks.extra_class import ExtraClass, extra_class

TOY = runpy.run_path(str(Path(__file__).with_name("watched_toy.py")))
ToyWatched: Any = TOY["ToyWatched"]
finite = st.floats(-1e6, 1e6)


def look(logits: list[list[float]], scores: list[float], dtype: torch.dtype = torch.float32) -> Look:
    embeddings = torch.zeros(len(scores), 1)
    return Look(torch.tensor(logits, dtype=dtype), torch.tensor(scores, dtype=torch.float64), embeddings)


def watched(threshold: float = 2.0, scale: float = 0.5) -> Any:
    return SimpleNamespace(threshold=threshold, scale=scale)


def test_logit_by_hand() -> None:
    """max o + (score - 2) / 0.5, also where all logits are negative."""
    found = extra_class(look([[1.0, 3.0], [-5.0, -7.0]], [2.5, 1.0]), watched())
    assert found.tolist() == [[1.0, 3.0, 4.0], [-5.0, -7.0, -7.0]]


@settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(finite, min_size=2, max_size=5),
    score=finite,
    threshold=finite,
    scale=st.floats(1e-6, 1e6),
    double=st.booleans(),
)
def test_wins_exactly_where_flagged(
    logits: list[float], score: float, threshold: float, scale: float, double: bool
) -> None:
    seen = look([logits], [score], torch.float64 if double else torch.float32)
    found = extra_class(seen, watched(threshold, scale))
    assert found.dtype == seen.logits.dtype
    alarm = found.argmax(1).item() == len(logits)
    assert alarm == (score > threshold)
    if not alarm:
        assert found.argmax(1).item() == seen.logits.argmax(1).item()


def test_an_alarm_below_rounding_is_an_alarm() -> None:
    """1e6 + 1e-9 is 1e6 in float32; at the threshold itself there is no alarm."""
    seen = look([[1e6, 0.0]] * 2, [2 + 1e-9, 2.0])
    seen.logits.requires_grad_()
    seen.scores.requires_grad_()
    found = extra_class(seen, watched())
    assert found.argmax(1).tolist() == [2, 0]
    (to_scores,) = torch.autograd.grad(found[:, 2].sum(), seen.scores)
    assert torch.allclose(to_scores, torch.full((2,), 2.0, dtype=torch.float64))


def test_gradient_is_that_of_both_parts() -> None:
    """Against finite differences, in float64, through classifier and density."""
    target = ToyWatched(dtype=torch.float64)
    x, _ = target.images(1)
    x = (x + 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).double()).clamp(0, 1)
    model = ExtraClass(target)
    x.requires_grad_()
    assert torch.autograd.gradcheck(model, x, eps=1e-6, atol=1e-5)
    (gradient,) = torch.autograd.grad(model(x)[:, -1].sum(), x)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_attacks_on_classifiers_become_joint_attacks() -> None:
    """Where a targeted BIM reaches one of the K classes, the image is of that class and not flagged."""
    target = ToyWatched()
    x, y = target.images(5)
    attack = BIM(eps=0.5, loss="margin", iterations=60, step=0.01, targeted=True)
    reached, flagged = [], []
    for goal in range(4):
        other = y != goal
        towards = torch.full_like(y[other], goal)
        result = attack(ExtraClass(target, aim=goal), x[other], y[other], y_target=towards)
        seen = target.look(result.x_adv)
        unseen = (seen.logits.argmax(1) == goal) & (seen.scores <= target.threshold)
        assert torch.equal(result.success, unseen)
        reached.append(unseen)
        blind = attack(target.module, x[other], y[other], y_target=towards)
        flagged.append(target.look(blind.x_adv[blind.success]).scores > target.threshold)
    assert torch.cat(reached).float().mean() > 0.9
    assert torch.cat(flagged).float().mean() > 0.5  # the detector is worth the extra class


@pytest.mark.parametrize("goal", range(4))
def test_aimed_or_not_the_same_images_win(goal: int) -> None:
    """Scoring every image as the class aimed at changes the way there, not what counts as there."""
    target = ToyWatched()
    x, _ = target.images(10)
    x = torch.cat([x, (x[:20] + x[20:]) / 2, x.flip(0).lerp(x, 0.7)])
    with torch.no_grad():
        plain, aimed = ExtraClass(target)(x).argmax(1), ExtraClass(target, aim=goal)(x).argmax(1)
    assert torch.equal(plain == goal, aimed == goal)
    assert 0 < (plain == 4).sum() < len(x)


def test_the_classifier_is_reached_and_put_back() -> None:
    target = ToyWatched()
    model = ExtraClass(target)
    model.train()
    assert target.module.training
    BIM(iterations=2)(model, target.images(1)[0])
    assert target.module.training
    model.eval()
    assert not target.module.training


def test_a_bare_classifier_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"ExtraClass works against a classifier and its detector, Linear is no"
    ):
        ExtraClass(nn.Linear(2, 2))  # type: ignore[arg-type]
