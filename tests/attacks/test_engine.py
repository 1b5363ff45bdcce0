"""The gradient engine: faster copies that compute the same, and leave the original as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attacks.engine as engine
from attacks import BIM, FGSM, JSMA, CarliniWagner, Prepared, Setup, prepare
from attacks.engine import fastest, setups
from attacks.task import Task

SETUPS = [
    Setup(),
    Setup(channels_last=True),
    Setup(micro_batch=5),
    Setup(channels_last=True, micro_batch=3),
    Setup(fold=False, micro_batch=4),
]


@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_logits_are_the_original_s(setup: Setup, trained: nn.Module, images: Tensor) -> None:
    ready = prepare(trained, images, setup)
    assert ready.setup == setup
    assert ready.exact is trained
    assert (ready.logits(images) - trained(images)).abs().max() < 1e-4
    folded = not any(isinstance(m, nn.BatchNorm2d) for m in ready.module.modules())
    assert folded == setup.fold
    weight = next(m for m in ready.module.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1).weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == setup.channels_last


@pytest.mark.parametrize("setup", SETUPS, ids=str)
@pytest.mark.parametrize("attack", [FGSM(eps=0.1), BIM(eps=0.1)], ids=["fgsm", "bim"])
def test_gradient_sign_attacks_as_on_the_exact_path(
    attack: Any, setup: Setup, trained: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    """Float32: equal on 99.9 % of the pixels."""
    x, y = digits[0][1000:1064], digits[1][1000:1064]
    exact, fast = attack(trained, x, y), attack(prepare(trained, x, setup), x, y)
    assert ((exact.x_adv - fast.x_adv).abs() < 1e-6).float().mean() >= 0.999
    assert torch.equal(exact.passes, fast.passes)


@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_carlini_wagner_as_on_the_exact_path(
    setup: Setup, trained: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    """Float32, 9 x 50: equal success on 99 % of the images, mean L2 within 0.5 %."""
    x, y = digits[0][1000:1064], digits[1][1000:1064]
    attack = CarliniWagner(max_iterations=50, lr=0.1)
    exact, fast = attack(trained, x, y), attack(prepare(trained, x, setup), x, y)
    assert (exact.success == fast.success).float().mean() >= 0.99
    both = exact.success & fast.success
    assert fast.l2[both].mean() == pytest.approx(float(exact.l2[both].mean()), rel=5e-3)


@pytest.mark.parametrize("size", [1, 3, 16, 50])
@pytest.mark.parametrize(
    "attack",
    [BIM(eps=0.1), CarliniWagner(max_iterations=20, lr=0.1), JSMA(max_steps=6)],
    ids=["bim", "cw", "jsma"],
)
def test_micro_batches_change_nothing(attack: Any, size: int, trained: nn.Module, images: Tensor) -> None:
    """In float64 to 1e-9, gradients counted alike."""
    model, x = copy.deepcopy(trained).double(), images.double()
    whole = attack(prepare(model, x, Setup(fold=False)), x)
    parts = attack(prepare(model, x, Setup(fold=False, micro_batch=size)), x)
    assert (whole.x_adv - parts.x_adv).abs().max() < 1e-9
    assert torch.equal(whole.passes, parts.passes)
    assert torch.equal(whole.zero_gradients, parts.zero_gradients)


def test_a_pass_sees_no_more_than_a_micro_batch(trained: nn.Module, images: Tensor) -> None:
    ready = prepare(trained, images, Setup(micro_batch=5))
    seen: list[int] = []
    ready.module.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    FGSM()(ready, images, torch.zeros(16, dtype=torch.int64))
    assert seen == [5, 5, 5, 1]


@pytest.mark.parametrize("training", [False, True])
def test_the_original_is_as_before(training: bool, trained: nn.Module, images: Tensor) -> None:
    model = copy.deepcopy(trained).train(training)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[1].bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    result = FGSM()(prepare(model, images), images)
    assert torch.equal(result.y, trained(images).argmax(1))  # attacked and judged in eval mode
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(m.training is training for m in model.modules())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[3].weight.grad is None


class Liar(nn.Module):
    """A prepared copy gone wrong: whatever it is shown, it is fooled."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return -self.net(x)


@pytest.mark.parametrize("attack", [FGSM(eps=0.01), CarliniWagner(max_iterations=3), JSMA(max_steps=4)])
def test_the_verdict_is_the_original_s(attack: Any, trained: nn.Module, images: Tensor) -> None:
    result = attack(Prepared(Liar(trained), trained, Setup()), images)
    logits = trained(result.x_adv)
    assert torch.equal(result.predicted, logits.argmax(1))
    assert torch.equal(result.y, trained(images).argmax(1))
    assert torch.equal(result.success, attack.reached(logits, result.y, result.target))
    assert not result.success.all()


class Drifting(nn.Module):
    """Its convolution is looked at from outside the graph: folding shifts the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 8), nn.BatchNorm2d(3)
        self.norm.running_mean.fill_(1.0)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).flatten(1) + self.conv.weight.sum(dim=(1, 2, 3))


def test_a_fold_that_changes_the_logits_is_taken_back() -> None:
    torch.manual_seed(0)
    net, x = Drifting(), torch.rand(4, 1, 8, 8)
    net.norm.weight.data.fill_(3.0)
    with pytest.warns(RuntimeWarning, match="they stay"):
        ready = prepare(net, x, Setup())
    assert not ready.setup.fold
    assert torch.allclose(ready.logits(x), net.eval()(x))


class Peeking(Drifting):
    """Its forward asks for what folding takes away."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).flatten(1) * self.norm.weight


def old_weight_norm() -> nn.Module:
    """Cannot be copied, once it has run."""
    net = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(1, 3, 8)), nn.BatchNorm2d(3), nn.Flatten())
    net(torch.rand(2, 1, 8, 8))
    return net.eval()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("make", [Peeking, old_weight_norm])
def test_what_cannot_be_folded_is_attacked_all_the_same(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net, x = make().eval(), torch.rand(4, 1, 8, 8)
    with pytest.warns(RuntimeWarning, match="they stay"):
        ready = prepare(net, x, Setup())
    assert not ready.setup.fold
    assert ready.slack == 0
    exact, fast = FGSM()(net, x), FGSM()(ready, x)
    assert torch.allclose(exact.x_adv, fast.x_adv)


def test_an_image_without_logits_tells_nothing_of_the_fold(trained: nn.Module, images: Tensor) -> None:
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(trained)

        def forward(self, x: Tensor) -> Tensor:
            bad = x.flatten(1).sum(dim=1) == 0
            return torch.where(bad[:, None], torch.nan, self.net(x))

    x = torch.cat([torch.zeros_like(images[:1]), images])
    ready = prepare(Choosy(), x, Setup())
    assert ready.setup.fold
    assert 0 < ready.slack < 1e-3
    assert prepare(trained, images[:0], Setup()).setup.fold


def test_the_fastest_wins_and_the_simpler_where_it_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(40, 1, 2, 2)
    seconds = {None: 1.0, 16: 0.99, 32: 0.7}
    monkeypatch.setattr(
        engine,
        "pass_seconds",
        lambda target, images: seconds[target.micro_batch] * (0.98 if target.setup.channels_last else 1),
    )
    assert fastest(net, x) == (Setup(micro_batch=32), 0.7 / 40)
    close = [Setup(), Setup(micro_batch=16)]
    assert fastest(net, x, close) == (close[0], 1.0 / 40)


def test_candidates_of_a_cpu_hold_no_graph() -> None:
    found = setups(torch.rand(40, 1, 2, 2))
    assert len(found) == len(set(found)) == 6
    assert {s.micro_batch for s in found} == {None, 16, 32}
    assert not any(s.cuda_graph for s in found)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stand-in for a recorded graph: one shape, and its outputs are overwritten by the next replay."""
    calls: list[int] = []

    def record(module: Callable, samples: tuple[Tensor, ...]) -> Callable:
        static = torch.zeros_like(module(samples[0]))

        def replay(x: Tensor) -> Tensor:
            assert x.shape == samples[0].shape
            calls.append(len(x))
            out = module(x)
            static.copy_(out.detach())
            return out + (static - out).detach()

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    return calls


def test_a_graph_is_filled_up_to_its_shape(
    monkeypatch: pytest.MonkeyPatch, trained: nn.Module, images: Tensor
) -> None:
    calls = recorded(monkeypatch)
    setup = Setup(micro_batch=6, cuda_graph=True)
    graphed = BIM(eps=0.1, iterations=2)(prepare(trained, images, setup), images)
    plain = BIM(eps=0.1, iterations=2)(prepare(trained, images, Setup(micro_batch=6)), images)
    assert calls == [6] * 6
    assert torch.equal(graphed.x_adv, plain.x_adv)


def test_wrong_setups_say_so(images: Tensor) -> None:
    with pytest.raises(ValueError, match="one shape: give a micro_batch"):
        Setup(cuda_graph=True)
    with pytest.raises(ValueError, match="micro_batch must be at least 1"):
        Setup(micro_batch=0)
    with pytest.raises(TypeError, match=r"needs an nn\.Module, not function"):
        prepare(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="recorded on images"):
        prepare(nn.Linear(1, 2), setup=Setup(micro_batch=1, cuda_graph=True))


def test_in_parts_joins_every_column(images: Tensor) -> None:
    none = torch.zeros(16, dtype=torch.int64)
    task = Task(lambda x: x, images, none, None, none, 0, lambda *a, **k: None, lambda: images, micro_batch=5)
    doubled, count = task.in_parts(
        lambda x, y: (x * 2, torch.full((len(y),), len(y))), images, torch.arange(16)
    )
    assert torch.equal(doubled, images * 2)
    assert count.tolist() == [5] * 15 + [1]


def test_a_success_holds_for_the_judge_too(trained: nn.Module, images: Tensor) -> None:
    """The nearest iterate lies at the limit: where a copy's margins are off by the slack, it still counts."""

    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = trained(x)
            return logits - 0.05 * nn.functional.one_hot(labels, 10)[: len(x)]  # every margin .05 too large

    labels = trained(images).argmax(1)
    attack = CarliniWagner(
        max_iterations=60, lr=0.05, abort_early=False, binary_search_steps=1, initial_const=9
    )
    loose = attack(Prepared(Shifted(), trained, Setup()), images)
    held = attack(Prepared(Shifted(), trained, Setup(), slack=0.05), images)
    assert held.success.all()
    assert loose.success.sum() < 16
    assert prepare(trained, images, Setup()).slack > 0
    assert prepare(trained, images, Setup(fold=False)).slack == 0
