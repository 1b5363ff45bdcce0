"""Attacks of ART through the adapter: judged, counted and bounded by us, whatever the library does."""

from __future__ import annotations

import builtins
import random
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.library import LibraryAttack, LibraryQueryAttack, _first, _seeded
from attacks.square import Square

TOY = runpy.run_path(str(Path(__file__).with_name("watched_toy.py")))
ToyWatched: Any = TOY["ToyWatched"]
APGD: dict[str, Any] = {
    "method": "AutoProjectedGradientDescent",
    "options": {"max_iter": 20, "nb_random_init": 1, "loss_type": "cross_entropy"},
    "budget": 60,
}
JUMP: dict[str, Any] = {
    "method": "HopSkipJump",
    "norm": "l2",
    "eps": None,
    "options": {"max_iter": 6, "max_eval": 40, "init_eval": 20},
    "budget": 800,
}
needs_art = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("art"), reason="needs adversarial-robustness-toolbox"
)


@pytest.fixture(scope="module")
def toy() -> Any:
    return ToyWatched()


def unseen(target: Any, x_adv: Tensor, y: Tensor) -> Tensor:
    look = target.look(x_adv)
    return (look.logits.argmax(1) != y) & (look.scores <= target.threshold)


@needs_art
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.25), ("l2", 0.9)])
def test_apgd_stays_in_the_ball_and_wins(toy: Any, norm: str, eps: float) -> None:
    x, y = toy.images(2)
    result = LibraryAttack(**APGD, norm=norm, eps=eps)(toy, x, y)
    assert (result.linf if norm == "linf" else result.l2).max() <= eps + 1e-6
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    assert torch.equal(result.success, unseen(toy, result.x_adv, y))
    assert result.success.float().mean() >= 0.75
    # a gradient tells more than a query
    assert result.success.sum() >= Square(norm=norm, eps=eps, queries=60)(toy, x, y).success.sum()


@needs_art
def test_passes_are_counted_and_bounded(toy: Any) -> None:
    """No ball of this size holds a success: every class is tried until the budget is spent."""
    x, y = toy.images(1)
    result = LibraryAttack(**APGD | {"budget": 30}, eps=0.001)(toy, x, y)
    assert not result.success.any()
    assert (result.passes == 30).all()
    fewer = LibraryAttack(**APGD | {"budget": 1000}, eps=0.001, classes=2)(toy, x, y)
    assert (fewer.passes == 2 * 20).all()
    assert LibraryAttack(**APGD).max_passes(4) == 60


@needs_art
def test_hopskipjump_finds_near_images_without_a_gradient() -> None:
    target = ToyWatched(TOY["masked"])
    x, y = target.images(1)
    attack = LibraryQueryAttack(**JUMP)
    assert "detector_gradients" not in attack.needs
    result = attack(target, x, y)
    assert result.success.all()
    assert torch.equal(result.success, unseen(target, result.x_adv, y))
    assert result.passes.max() <= 800
    start = Square(eps=1.0, queries=200)(target, x, y)
    assert (result.l2 <= start.l2 + 1e-6).all()  # it starts from there
    assert result.l2.mean() < 0.8 * start.l2.mean()


@needs_art
@pytest.mark.parametrize("settings", [APGD | {"eps": 0.2}, JUMP], ids=["apgd", "hopskipjump"])
def test_batch_mates_do_not_matter(toy: Any, settings: dict[str, Any]) -> None:
    """Also what draws from the global generators is a function of (seed, index); they are put back."""
    x, y = toy.images(1)
    attack = LibraryAttack(**settings)
    torch.manual_seed(3)
    random.seed(3)
    before = torch.get_rng_state(), random.getstate()
    whole = attack(toy, x, y, index=range(100, 104), seed=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    torch.rand(1)
    part = attack(toy, x[2:3], y[2:3], index=[102], seed=5)
    assert torch.equal(whole.x_adv[2:3], part.x_adv)
    assert torch.equal(whole.passes[2:3], part.passes)


@needs_art
def test_targeted(toy: Any) -> None:
    x, y = toy.images(1)
    goal = (y + 2) % 4
    result = LibraryAttack(**APGD | {"budget": 20}, eps=0.5, targeted=True)(toy, x, y, y_target=goal)
    assert torch.equal(result.success, unseen(toy, result.x_adv, y) & (result.predicted == goal))
    assert result.success.any()


@needs_art
@pytest.mark.parametrize("broken", ["constant", "squashed", "clamped"])
def test_broken_detectors_do_not_crash_it(broken: str) -> None:
    target = ToyWatched(TOY[broken])
    x, y = target.images(1)
    result = LibraryAttack(**APGD, eps=0.3)(target, x, y)
    assert torch.equal(result.success, unseen(target, result.x_adv, y))
    assert (broken != "constant") or bool(result.success.all())


@needs_art
def test_float64_images(toy: Any) -> None:
    target = ToyWatched(dtype=torch.float64)
    x, y = target.images(1)
    result = LibraryAttack(**APGD, eps=0.25)(target, x, y)
    assert result.x_adv.dtype == torch.float64
    assert result.linf.max() <= 0.25 + 1e-6


def test_the_best_of_a_batch() -> None:
    """A success before a misclassified image before the largest margin; the cheapest of its kind; inside alone."""
    yes, no = torch.tensor([True] * 4), torch.tensor([False] * 4)
    lead, cost = torch.tensor([-1.0, 2.0, 3.0, -0.5]), torch.tensor([0.1, 5.0, 4.0, 0.2])
    wrong, second = lead > 0, torch.tensor([False, True, False, False])
    assert _first(yes, wrong, no, lead, cost) == slice(2, 3)
    assert _first(yes, wrong, second, lead, cost) == slice(1, 2)
    assert _first(yes, no, no, lead - 9, cost) == slice(2, 3)
    assert _first(torch.tensor([True, False, False, True]), wrong, no, lead, cost) == slice(3, 4)
    assert _first(no, wrong, yes, lead, cost) is None
    # inside alone also where no cost is finite; a cost of NaN is the worst
    assert _first(second, yes, no, lead, cost + torch.inf) == slice(1, 2)
    assert _first(yes, yes, no, lead, torch.tensor([torch.nan, 2.0, 1.0, torch.nan])) == slice(2, 3)


def test_a_seed_for_the_library_leaves_accelerators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their state is not put back afterwards, so it must not be set."""

    def refuse(seed: int) -> None:
        raise AssertionError("the accelerator's generator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    with _seeded(3):
        first = torch.rand(2)
    with _seeded(3):
        assert torch.equal(torch.rand(2), first)


@needs_art
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": "NoSuchAttack"}, "art.attacks.evasion has no attack 'NoSuchAttack'"),
        ({"options": {"max_itr": 3}}, "knows no argument max_itr; its arguments are batch_size"),
        ({"options": {"max_iter": -3}}, "art.attacks.evasion.AutoProjectedGradientDescent: .*max_iter"),
        ({"method": "DeepFool", "options": {}}, "no targets, which this adapter needs"),
    ],
)
def test_wrong_names_and_values(toy: Any, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line) as error:
        LibraryAttack(**APGD | changes)(toy, *toy.images(1))
    assert "\n" not in str(error.value)


def test_what_is_set_elsewhere_is_no_option() -> None:
    with pytest.raises(ValueError, match=r"options must not hold eps: set attack.eps itself"):
        LibraryAttack(method="AutoProjectedGradientDescent", options={"eps": 0.1})
    with pytest.raises(ValueError, match=r"norm must be one of"):
        LibraryAttack(**APGD, norm="l1")


def test_without_art(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "art":
            raise ModuleNotFoundError("No module named 'art'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'pdm-lightning\[library\]'"):
        LibraryAttack(**APGD)(toy, *toy.images(1))
