"""What every attack promises, for every attack file in conf/."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import attacks
from attacks import Attack, JointAttack

CONF = Path(__file__).parents[2] / "conf" / "attack"
ABOUT = {"name", "label", "cost", "lean"}
FEW = {
    "max_iterations": 6,
    "binary_search_steps": 3,
    "max_steps": 10,
    "confidence": 0.5,
    "stage1_iterations": 6,
    "stage2_iterations": 8,
    "iterations": 6,
    "restarts": 2,
    "searches": 3,
    "queries": 12,
    "budget": 12,
    "aim": "runner_up",
}


def options(name: str) -> dict:
    """An attack file with the files of its defaults list merged in."""
    own = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    merged: dict = {}
    for parent in own.pop("defaults", ["_self_"]):
        merged |= own if parent == "_self_" else options(parent)
    return merged


def build(name: str, **changes: object) -> Attack:
    values = {key: value for key, value in options(name).items() if key not in ABOUT}
    module, _, kind = values.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), kind)(**values | changes)


def short(name: str, **changes: object) -> Attack:
    """The attack of a file with a budget for tests, by the fields it has."""
    return build(name, **{k: v for k, v in FEW.items() if k in options(name)} | changes)


Guard = Callable[[nn.Module], Any]


def held(name: str, model: nn.Module, guard: Guard) -> Any:
    """What the attack of a file works on: the classifier, or the classifier with a detector behind it."""
    if options(name)["_target_"] in ("attacks.LibraryAttack", "attacks.LibraryQueryAttack"):
        pytest.importorskip("art")
    return guard(model) if "detector" in build(name, **_number(options(name))).needs else model


NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
ATTACKS = pytest.mark.parametrize("name", NAMES)


def test_every_exported_attack_has_a_file() -> None:
    shipped = {options(name)["_target_"] for name in NAMES}
    kinds = [getattr(attacks, n) for n in attacks.__all__]
    expected = {f"attacks.{k.__name__}" for k in kinds if isinstance(k, type) and issubclass(k, Attack)}
    assert shipped == expected - {"attacks.Attack", "attacks.JointAttack"}


@ATTACKS
def test_file_is_complete(name: str) -> None:
    config = options(name)
    assert config["name"] == name
    assert config["cost"] in ("cheap", "medium", "heavy")
    attack = build(name, **_number(config))
    assert set(config) - ABOUT - {"_target_"} == {field.name for field in fields(attack)}


def _number(config: dict) -> dict:
    """A number where a file leaves the confidence to the model, a word where it follows the budget."""
    own = {"confidence": 1.0} if config.get("confidence") == "median_margin" else {}
    return own | ({"aim": "runner_up"} if "aim" in config else {})


@ATTACKS
def test_options_name_their_override(name: str) -> None:
    """Each option's comment is a line that can be typed: `attack.<the option>=<value>`."""
    for line in (CONF / f"{name}.yaml").read_text().splitlines():
        key, colon, rest = line.partition(":")
        if colon and key.isidentifier() and key not in ABOUT | {"_target_", "defaults"}:
            assert f"# attack.{key}=" in rest, line


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fgsm_005", {"eps": 0.05}),
        ("bim_010", {"eps": 0.1, "iterations": 10, "step": None, "random_start": False}),
        (
            "cw",
            {
                "confidence": 0,
                "max_iterations": 10,
                "binary_search_steps": 9,
                "lr": 5e-3,
                "initial_const": 1e-2,
            },
        ),
        ("cw_hc", {"confidence": 10, "max_iterations": 1000, "binary_search_steps": 9, "lr": 5e-3}),
        ("cw_converged", {"confidence": 0, "max_iterations": 1000, "lr": 1e-2}),
        (
            "jsma",
            {"theta": 1, "max_steps": 100, "pixels_per_step": 2, "targeted": True, "target_class": "random"},
        ),
    ],
)
def test_paper_parameters(name: str, expected: dict) -> None:
    config = options(name)
    assert {key: config[key] for key in expected} == expected


@ATTACKS
@pytest.mark.parametrize("targeted", [False, True])
def test_result(name: str, targeted: bool, trained: nn.Module, images: Tensor, guard: Guard) -> None:
    """Shapes, box, and flags that agree with the model asked anew."""
    attack = short(name, targeted=targeted)
    before = images.clone()
    target = held(name, trained, guard)
    result = attack(target, images, seed=3)
    assert torch.equal(images, before)
    assert result.x_adv.shape == images.shape
    assert result.x_adv.dtype == images.dtype
    assert not result.x_adv.requires_grad
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    clean, logits = trained(images), trained(result.x_adv)
    assert torch.equal(result.y, clean.argmax(1))
    assert torch.equal(result.predicted, logits.argmax(1))
    goal = result.predicted == result.target if targeted else result.predicted != result.y
    if result.target is not None:
        assert (result.target != result.y).all()
    assert (result.target is None) == (not targeted)
    if "confidence" in options(name) or isinstance(attack, JointAttack):  # more is asked for than the class
        assert not (result.success & ~goal).any()
    else:
        assert torch.equal(result.success, goal)
    change = (result.x_adv - images).flatten(1)
    assert torch.allclose(result.l2, change.square().sum(1).sqrt(), atol=1e-6)
    assert torch.equal(result.linf, change.abs().max(1).values)
    assert torch.equal(result.l0, change.ne(0).sum(1).float())
    if name == "none":
        assert (result.passes == 0).all()
    else:  # nothing is asked of the model only where an attack on a detector has won before it begins
        won, _ = attack.judge(target, images, result.y, result.target)
        assert ((result.passes > 0) | (won & isinstance(attack, JointAttack))).all()
    assert (result.passes <= attack.max_passes(10)).all()
    assert (result.zero_gradients <= result.passes).all()


@ATTACKS
@pytest.mark.parametrize("targeted", [False, True])
def test_batch_mates_do_not_matter(
    name: str, targeted: bool, trained: nn.Module, images: Tensor, guard: Guard
) -> None:
    """In float64, alone or in a batch in another order: the same to 1e-9."""
    model, x = copy.deepcopy(trained).double(), images[:8].double()
    random_start = {"random_start": True} if "random_start" in options(name) else {}
    attack = short(name, targeted=targeted, **random_start)
    model = held(name, model, guard)
    whole = attack(model, x, index=range(100, 108), seed=5)
    order = torch.tensor([5, 2, 7])
    part = attack(model, x[order], index=order + 100, seed=5)
    assert (whole.x_adv[order] - part.x_adv).abs().max() < 1e-9
    assert torch.equal(whole.success[order], part.success)
    assert torch.equal(whole.passes[order], part.passes)
    alone = attack(model, x[4:5], index=[104], seed=5)
    assert (whole.x_adv[4:5] - alone.x_adv).abs().max() < 1e-9


@ATTACKS
def test_leaves_the_model_as_it_was(name: str, trained: nn.Module, images: Tensor, guard: Guard) -> None:
    model = copy.deepcopy(trained).train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    modes, flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    result = short(name)(held(name, model, guard), images)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert (model[0].weight.grad == 7).all()
    assert all(p.grad is None for p in list(model.parameters())[1:])
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    # dropout and batch statistics were off
    assert torch.equal(result.predicted, trained(result.x_adv).argmax(1))


@ATTACKS
def test_saturated_pixels_stay_finite(name: str, trained: nn.Module, guard: Guard) -> None:
    x = (torch.arange(8 * 64).reshape(8, 1, 8, 8) % 3 == 0).float()
    result = short(name)(held(name, trained, guard), x)
    assert torch.isfinite(result.x_adv).all()
    assert torch.isfinite(result.l2).all()


@ATTACKS
def test_empty_batch(name: str, trained: nn.Module, guard: Guard) -> None:
    attack = short(name)
    result = attack(held(name, trained, guard), torch.zeros(0, 1, 8, 8))
    assert result.x_adv.shape == (0, 1, 8, 8)
    assert len(result.success) == len(result.l2) == len(result.passes) == 0
    assert (result.target is None) == (not attack.targeted)


@ATTACKS
def test_progress_ends_inside_its_total(name: str, trained: nn.Module, images: Tensor, guard: Guard) -> None:
    calls: list[tuple[int, int]] = []

    def note(done: int, total: int, active: int = 0) -> None:
        assert 0 <= active <= len(images)
        calls.append((done, total))

    short(name)(held(name, trained, guard), images, progress=note)
    assert calls
    assert all(0 < done <= total for done, total in calls)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
