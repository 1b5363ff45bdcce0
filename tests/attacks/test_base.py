"""Inputs, targets, randomness and the state of the model."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from attacks import BIM, FGSM, JSMA, CarliniWagner, NoAttack, frozen
from attacks.objectives import ascent, margin

LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
X = torch.full((2, 1, 2, 2), 0.5)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[0.5]], TypeError, "must be a torch.Tensor"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), TypeError, r"x.float\(\) / 255"),
        (X.half(), TypeError, "float32 or float64"),
        (X[0], ValueError, "NCHW"),
        (X * 3, ValueError, r"\[0, 1\], found \[1.5, 1.5\]"),
        (X - 0.6, ValueError, r"\[0, 1\]"),
        (X * torch.nan, ValueError, "NaN"),
    ],
)
def test_bad_images(x: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        FGSM()(LINEAR, x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"y": torch.tensor([0])}, ValueError, r"y must have shape \(2,\)"),
        ({"y": torch.tensor([0.0, 1.0])}, TypeError, "integers"),
        ({"y": torch.tensor([0, 3])}, ValueError, r"y must lie in 0..2.*0..3"),
        ({"y_target": torch.tensor([0, 1])}, ValueError, "targeted=True"),
        ({"index": [1, 2, 3]}, ValueError, "index"),
    ],
)
def test_bad_rows(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FGSM()(LINEAR, X, **arguments)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (object(), TypeError, "logits"),
        (lambda x: x, ValueError, r"shape \(2, K\)"),
        (lambda x: LINEAR(x) / 0, ValueError, "NaN or infinite"),
        (lambda x: LINEAR(x).detach(), ValueError, "carry no gradient"),
    ],
)
def test_bad_target(target: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FGSM()(target, X)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (FGSM, {"eps": -0.1}, "eps"),
        (FGSM, {"loss": "mse"}, "ce, margin"),
        (FGSM, {"target_class": "best"}, "runner_up"),
        (BIM, {"iterations": 0}, "iterations"),
        (BIM, {"step": 0.0}, "step"),
        (CarliniWagner, {"confidence": float("nan")}, "confidence"),
        (CarliniWagner, {"lr": 0}, "lr"),
        (JSMA, {"theta": 0.0}, "theta"),
        (JSMA, {"theta": 2.0}, "theta"),
        (JSMA, {"pixels_per_step": 3}, "pixels_per_step"),
    ],
)
def test_bad_hyper_parameters(kind: type, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_a_confidence_in_words_is_refused() -> None:
    with pytest.raises(TypeError, match="confidence must be a number"):
        CarliniWagner(confidence="median_margin")


def test_margin_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.5], [0.0, -2.0, 4.0]])
    y = torch.tensor([0, 1])
    assert margin(logits, y).tolist() == [-0.5, 6.0]
    assert margin(logits, y, torch.tensor([1, 0])).tolist() == [-2.0, -4.0]


def test_ascent_by_hand() -> None:
    logits, y = torch.tensor([[0.0, 0.0]]), torch.tensor([0])
    assert ascent("ce", logits, y).item() == pytest.approx(0.6931472)
    assert ascent("ce", logits + torch.tensor([0.0, 1.0]), y, y).item() == pytest.approx(-1.3132617)
    assert ascent("margin", logits + torch.tensor([0.0, 1.0]), y).item() == 1.0


def test_target_classes() -> None:
    logits = torch.tensor([[5.0, 1.0, 2.0, 0.0]]).repeat(300, 1)
    target = SimpleNamespace(logits=lambda x: logits[: len(x)] + x.sum() * 0)
    x = torch.zeros(300, 1, 1, 1)
    assert (NoAttack(targeted=True, target_class="runner_up")(target, x).target == 2).all()
    assert (
        NoAttack(targeted=True, target_class="next")(target, x, y=torch.full((300,), 3)).target == 0
    ).all()
    drawn = NoAttack(targeted=True)(target, x, seed=1).target
    counts = torch.bincount(drawn, minlength=4)
    assert counts[0] == 0
    assert (counts[1:] > 70).all()  # 100 expected; 70 lies 3.7 standard deviations below
    again = NoAttack(targeted=True)(target, x[:50], index=range(100, 150), seed=1).target
    assert torch.equal(again, drawn[100:150])
    assert not torch.equal(NoAttack(targeted=True)(target, x, seed=2).target, drawn)


def test_given_targets_and_labels_are_kept() -> None:
    y, goal = torch.tensor([0, 1]), torch.tensor([2, 2])
    result = NoAttack(targeted=True)(LINEAR, X, y, y_target=goal)
    assert torch.equal(result.y, y)
    assert torch.equal(result.target, goal)
    assert torch.equal(result.success, result.predicted == goal)


def test_a_method_logits_is_preferred_but_a_layer_of_that_name_is_not() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.logits(x.flatten(1))

    net = Net()
    assert torch.equal(NoAttack()(net, X).predicted, net(X).argmax(1))
    negated = SimpleNamespace(logits=lambda x: -LINEAR(x), module=LINEAR)
    assert torch.equal(NoAttack()(negated, X).predicted, LINEAR(X).argmin(1))


@pytest.mark.parametrize("reach", ["module", "method"])
def test_frozen_reaches_the_module_and_restores_it_after_an_error(reach: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 3))
    target = SimpleNamespace(module=model, logits=model) if reach == "module" else model.forward

    def failing() -> None:
        with frozen(target):
            assert not any(m.training for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        failing()
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_an_attack_that_fails_midway_restores_the_model() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 3))

    def full(done: int, total: int, active: int = 0) -> None:
        raise OSError("no space left on the terminal")

    with pytest.raises(OSError, match="no space"):
        BIM()(model, X, progress=full)
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("attack", [FGSM(), CarliniWagner(max_iterations=3), JSMA(max_steps=2)])
def test_gradients_switched_off_outside(mode: type, attack: FGSM) -> None:
    expected = attack(LINEAR, X, torch.tensor([0, 1]))
    with mode():
        result = attack(LINEAR, X * 1, torch.tensor([0, 1]) * 1)
    assert torch.equal(result.x_adv, expected.x_adv)


def test_repr_prints_every_hyper_parameter() -> None:
    for attack in (FGSM(), BIM(), CarliniWagner(), JSMA()):
        names = [field.name for field in fields(attack)]
        assert all(f"{name}=" in repr(attack) for name in names)
        with pytest.raises(AttributeError):
            attack.targeted = True


def test_zero_gradients_are_counted() -> None:
    """A softmax saturated in float32 has a zero gradient; the margin loss does not."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    nn.init.constant_(model[1].weight, 0.0)
    model[1].weight.data[0] = 1000.0
    result = BIM(eps=0.05)(model, X)
    assert result.zero_gradients.tolist() == [10, 10]
    assert torch.equal(result.x_adv, X)
    result = BIM(eps=0.05, loss="margin")(model, X)
    assert result.zero_gradients.tolist() == [0, 0]
    assert torch.allclose(result.x_adv, X - 0.05)
