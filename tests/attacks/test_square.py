"""Square attack: its windows and bumps against hand-computed values, and what it promises as an attack."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attacks import Task
from attacks.objectives import margin
from attacks.square import Square, _bump, _stripes, _tiles, bump, window_pixels, window_side

TOY = runpy.run_path(str(Path(__file__).with_name("watched_toy.py")))
ToyWatched: Any = TOY["ToyWatched"]
BALLS = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 1.0)])


@pytest.fixture(scope="module")
def toy() -> Any:
    return ToyWatched()


def test_windows_shrink_as_published() -> None:
    # sqrt(0.8 * 784) = 25.04; halved once sqrt(313.6) = 17.7; after all eight halvings sqrt(2.45) = 1.57
    assert window_side(0.8, 0.0, (28, 28)) == 25
    assert window_side(0.8, 10 / 10_000, (28, 28)) == 18
    assert window_side(0.8, 49 / 10_000, (28, 28)) == 18
    assert window_side(0.8, 50 / 10_000, (28, 28)) == 13
    assert window_side(0.8, 0.99, (28, 28)) == 2
    assert window_side(1.0, 0.0, (4, 9)) == 4
    assert window_side(0.01, 0.99, (4, 4)) == 1


def test_window_pixels_by_hand() -> None:
    """In an image of 3 x 4, a window of side 2 has 2 x 3 places."""
    top, left = torch.tensor([0.0, 0.99]), torch.tensor([0.0, 0.99])
    pixels = window_pixels(2, (3, 4), top, left)
    assert pixels.tolist() == [[[0, 1, 4, 5]], [[6, 7, 10, 11]]]


def test_bump_by_hand() -> None:
    """n = 2: 1/9 at the edge, + 1/4 one ring further in, + 1 in the middle."""
    edge, ring, middle = 1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1
    wide = torch.tensor([[edge] * 5, [edge, ring, ring, ring, edge], [edge, ring, middle, ring, edge]])
    assert torch.allclose(bump(5, 5), torch.cat([wide, wide[:2].flip(0)]).double(), atol=1e-7)
    assert torch.allclose(
        bump(4, 2), torch.tensor([[edge] * 2, [ring] * 2, [ring, middle], [ring] * 2]).double()
    )
    assert bump(1, 1).tolist() == [[1.0]]
    assert bump(1, 0).shape == (1, 0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), side=st.integers(1, 6), channels=st.integers(1, 3), scale=st.floats(0, 1))
def test_l2_step_spends_the_whole_budget(seed: int, side: int, channels: int, scale: float) -> None:
    """The new perturbation has norm 1; outside of the two windows nothing changes, the emptied window is zero."""
    g = torch.Generator().manual_seed(seed)
    change = torch.randn(2, channels, 6 * 7, generator=g, dtype=torch.float64)
    change *= scale / torch.linalg.vector_norm(change, dim=(1, 2), keepdim=True)
    place, other = (window_pixels(side, (6, 7), *torch.rand(2, 2, generator=g)) for _ in range(2))
    signs = torch.where(torch.rand(2, channels, 1, generator=g) < 0.5, -1.0, 1.0).double()
    turned = torch.rand(2, 1, 1, generator=g) < 0.5
    new = _bump(change, signs, side, turned, place, other)
    assert torch.allclose(torch.linalg.vector_norm(new, dim=(1, 2)), torch.ones(2).double(), atol=1e-9)
    for i in range(2):
        inside, emptied = set(place[i, 0].tolist()), set(other[i, 0].tolist())
        rest = sorted(set(range(42)) - inside - emptied)
        assert torch.equal(new[i][:, rest], change[i][:, rest])
        assert (new[i][:, sorted(emptied - inside)] == 0).all()


def test_starts() -> None:
    x = torch.full((3, 2, 6, 8), 0.5)
    none = torch.zeros(3, dtype=torch.int64)
    task = Task(lambda x: x, x, none, None, torch.tensor([4, 7, 4]), 0, lambda *a, **k: None, lambda: x)
    stripes, tiles = _stripes(task), _tiles(task)
    assert stripes.shape == (3, 2, 1, 8)
    assert (stripes.abs() == 1).all()
    assert torch.allclose(torch.linalg.vector_norm(tiles, dim=(1, 2, 3)), torch.ones(3))
    for start in (stripes, tiles):
        assert torch.equal(start[0], start[2])
        assert not torch.equal(start[0], start[1])


@BALLS
def test_ball_box_and_honest_success(toy: Any, norm: str, eps: float) -> None:
    x, y = toy.images(4)
    result = Square(norm=norm, eps=eps, queries=200)(toy, x, y)
    assert 0 < result.success.sum() < len(x)
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    assert (result.linf if norm == "linf" else result.l2).max() <= eps + 1e-6
    look = toy.look(result.x_adv)
    unseen = (look.logits.argmax(1) != y) & (look.scores <= toy.threshold)
    assert torch.equal(result.success, unseen)
    # who fails has used all queries, who succeeds leaves
    assert (result.passes[~result.success] == 200).all()
    assert (result.passes[result.success] < 200).any()
    assert (result.zero_gradients == 0).all()


@BALLS
def test_passes_are_queries(toy: Any, norm: str, eps: float) -> None:
    class Counted(ToyWatched):
        looked = 0

        def look(self, x: Tensor, classes: Tensor | None = None) -> Any:
            self.looked += len(x)
            assert not torch.is_grad_enabled()
            return super().look(x, classes)

    target = Counted()
    target.looked = 0
    x, y = target.images(2)
    attack = Square(norm=norm, eps=eps, queries=50)
    result = attack(target, x, y)
    # looks that are no queries: at the clean images, and at the result to judge it
    assert target.looked - 2 * len(x) == result.passes.sum()
    assert result.passes.max() <= attack.max_passes(4) == 50


@pytest.mark.parametrize("broken", ["constant", "masked", "squashed", "clamped"])
@BALLS
def test_broken_detectors_are_broken(broken: str, norm: str, eps: float) -> None:
    """Needs no gradient, so hiding it protects nothing."""
    target = ToyWatched(TOY[broken])
    x, y = target.images(3)
    result = Square(norm=norm, eps=2 * eps, queries=500)(target, x, y)
    assert result.success.float().mean() > 0.8


@BALLS
@pytest.mark.parametrize("targeted", [False, True])
def test_batch_mates_do_not_matter(norm: str, eps: float, targeted: bool) -> None:
    target = ToyWatched(dtype=torch.float64)
    x, y = target.images(2)
    attack = Square(norm=norm, eps=eps, queries=110, targeted=targeted)
    whole = attack(target, x, y, index=range(100, 108), seed=5)
    order = torch.tensor([6, 2, 7])
    part = attack(target, x[order], y[order], index=order + 100, seed=5)
    assert (whole.x_adv[order] - part.x_adv).abs().max() < 1e-9
    assert torch.equal(whole.passes[order], part.passes)
    other = attack(target, x, y, index=range(100, 108), seed=6)
    assert not torch.equal(whole.x_adv, other.x_adv)


@BALLS
def test_goes_on_where_asked(toy: Any, norm: str, eps: float) -> None:
    """Without early_stop the same search runs longer: successes stay, their scores fall."""
    x, y = toy.images(4)
    stopped = Square(norm=norm, eps=eps, queries=200)(toy, x, y)
    longer = Square(norm=norm, eps=eps, queries=200, early_stop=False)(toy, x, y)
    assert (longer.passes == 200).all()
    assert (longer.success >= stopped.success).all()
    both = stopped.success
    before, after = toy.look(stopped.x_adv[both]).scores, toy.look(longer.x_adv[both]).scores
    assert (after <= before + 1e-9).all()
    assert (after < before).any()


def test_as_strong_as_the_library_without_a_detector() -> None:
    """Against ART's own Square attack with as many queries, where the detector says nothing."""
    estimators = pytest.importorskip("art.estimators.classification")
    evasion = pytest.importorskip("art.attacks.evasion")
    target = ToyWatched(TOY["constant"])
    x, _ = target.images(10)
    clean = target.logits(x).argmax(1)
    estimator = estimators.PyTorchClassifier(
        target.module, torch.nn.CrossEntropyLoss(), (1, 4, 4), 4, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = evasion.SquareAttack(
        estimator, norm=float("inf"), eps=0.12, max_iter=60, p_init=0.3, verbose=False
    )
    theirs = torch.from_numpy(attack.generate(x.numpy(), clean.numpy()))
    target.module.eval()
    ours = Square(eps=0.12, queries=60, p=0.3)(target, x, clean).success.float().mean()
    reference = (target.logits(theirs).argmax(1) != clean).float().mean()
    assert 0.1 < reference < 1
    assert ours >= reference - 0.05


@BALLS
def test_what_has_won_already_is_left_alone(toy: Any, norm: str, eps: float) -> None:
    """The clean image is looked at as well: no query where it is a success, and no failure that is worse."""
    x, y = toy.images(4)
    look = toy.look(x)
    mislabelled = torch.where(look.scores <= toy.threshold, (look.logits.argmax(dim=1) + 1) % 4, y)
    won = (look.logits.argmax(dim=1) != mislabelled) & (look.scores <= toy.threshold)
    result = Square(norm=norm, eps=eps, queries=20)(toy, x, mislabelled)
    assert won.any()
    assert (result.success & (result.l2 == 0) & (result.passes == 0))[won].all()
    failed = Square(norm=norm, eps=0.001, queries=1)(toy, x, y)
    assert (margin(toy.logits(failed.x_adv), y) >= margin(look.logits, y)).all()


def test_no_room_changes_nothing(toy: Any) -> None:
    x, y = toy.images(1)
    for norm in ("linf", "l2"):
        assert torch.equal(Square(norm=norm, eps=0, queries=5)(toy, x, y).x_adv, x)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"norm must be one of linf, l2"):
        Square(norm="l1")
    with pytest.raises(ValueError, match=r"p must lie in \(0, 1\], not 2"):
        Square(p=2)
    with pytest.raises(ValueError, match=r"queries must be at least 1"):
        Square(queries=0)
    with pytest.raises(TypeError, match=r"Square works against a classifier and its detector"):
        Square()(torch.nn.Flatten(), torch.rand(2, 1, 2, 2))
