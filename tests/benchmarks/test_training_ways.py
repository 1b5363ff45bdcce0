"""The ways to train: each does what it says, takes its turns, and tells of its failure."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import training_usual, training_ways
from benchmarks.training_cases import Case, images
from benchmarks.training_usual import Pairs, Usual, single_images
from benchmarks.training_ways import BARE, BF16, OURS, Over, Runner, Steps, Turn

TINY = Case("cifar10", "resnet8", "pdm", batch=4, images=40, side=8)


def after_one_step(
    monkeypatch: pytest.MonkeyPatch, place: Any, train: Callable[[Callable[..., None]], object]
) -> torch.nn.Module:
    """The classifier that `place` has built for a training that ended with its first step."""
    made: list[torch.nn.Module] = []
    build = place.build_classifier

    def built(*arguments: Any) -> torch.nn.Module:
        made.append(build(*arguments))
        return made[-1]

    def step(done: int = 1, **_: Any) -> None:
        if done:
            raise Over

    with monkeypatch.context() as patched, contextlib.suppress(Over):
        patched.setattr(place, "build_classifier", built)
        train(step)
    (classifier,) = made
    return classifier


@pytest.mark.parametrize("layout", BARE)
@pytest.mark.parametrize("defense", ["ce", "pdm"])
def test_bare_passes_leave_the_gradients_of_our_first_step(
    layout: str, defense: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = Case("cifar10", "resnet8", defense, batch=4, images=40, side=8)
    last = layout == "bare, channels last"
    bare = after_one_step(monkeypatch, training_ways, lambda step: training_ways.bare(case, None, last, step))
    own = after_one_step(
        monkeypatch, training_ways.stage, lambda step: training_ways.ours(case, None, step, tmp_path)
    )
    expected = {name: weight.grad for name, weight in own.named_parameters()}
    found = {name: weight.grad for name, weight in bare.named_parameters()}
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert gradient is not None and gradient.abs().sum() > 0
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)
    kernels = [w for w in bare.parameters() if w.dim() == 4 and min(w.shape[1:]) > 1]
    assert kernels
    for kernel in kernels:
        assert kernel.is_contiguous(memory_format=torch.channels_last) == last
        assert kernel.is_contiguous() != last


@pytest.mark.parametrize(
    ("defense", "count", "terms"), [("pdm", 8, {"rce", "siamese", "rvl"}), ("ce", 4, set())]
)
def test_the_usual_batch_has_all_images_and_terms(
    defense: str, count: int, terms: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []
    logged: set[str] = set()

    class Watched(training_usual.ResNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x)

    def step(_: int) -> None:
        raise Over

    monkeypatch.setattr(training_usual, "ResNet", Watched)
    monkeypatch.setattr(Usual, "log", lambda self, name, value: logged.add(name))
    case = Case("cifar10", "resnet8", defense, batch=4, images=40, side=8)
    with contextlib.suppress(Over):
        training_usual.train(case, None, 0, step, tmp_path)
    assert seen == [count]
    assert logged == {f"train/{name}" for name in terms | {"loss", "accuracy"}}


@pytest.mark.parametrize(("way", "precision"), [(OURS, "float32"), (BF16, "bf16")])
def test_ours_trains_in_the_precision_of_its_name(
    way: str, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        training_ways, "ours", lambda *rest: asked.append(rest[-1].get("precision", "float32"))
    )
    training_ways._train(way, TINY, None, Line((1, 0.0)), "wall", tmp_path)  # type: ignore[arg-type]
    assert asked == [precision]


def test_bf16_is_left_out_where_no_instruction_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, has in (({}, False), ({"amx_bf16": True}, True), ({"avx512_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert (BF16 in training_ways.possible()) == has
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert training_ways.possible() == tuple(way for way in training_ways.WAYS if way != BF16)


@pytest.mark.parametrize("data", ["mnist", "cifar10"])
def test_the_usual_data_set_shows_the_same_images(data: str) -> None:
    case = Case(data, "resnet8", "ce", images=20, side=8)
    usual = single_images(case, None)
    pixels, labels = images(case, None).train
    assert type(usual).__name__ == {"mnist": "MNIST", "cifar10": "CIFAR10"}[data]
    assert len(usual) == 20
    if data == "mnist":  # no augmentation: the very pixels, normalised
        for index in (0, 7, 19):
            x, y = usual[index]
            assert torch.allclose(x, (pixels[index].float() / 255 - 0.5) / 0.5, atol=1e-6)
            assert int(y) == int(labels[index])
    else:
        assert usual[3][0].shape == (3, 8, 8)
        assert (len({usual[3][0].sum().item() for _ in range(20)})) > 1


def test_usual_pairs_are_of_one_class_half_of_the_time() -> None:
    torch.manual_seed(0)
    pairs = Pairs(single_images(Case("mnist", "resnet8", "pdm", images=40, side=8), None))
    drawn = [pairs[i % 40] for i in range(400)]
    assert all((int(y1) == int(y2)) == same for _, y1, _, y2, same in drawn)
    assert 150 < sum(same for *_, same in drawn) < 250


class Line:
    """A line whose other end is a list of turns."""

    def __init__(self, *messages: Any) -> None:
        self.messages, self.sent = list(messages), list[Turn]()

    def recv(self) -> Any:
        return self.messages.pop(0)

    def send(self, turn: Turn) -> None:
        self.sent.append(turn)


def test_a_turn_measures_what_follows_its_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, parts = [0.0], {"forward": 0.0}
    monkeypatch.setattr(training_ways, "now", lambda _: clock[0])
    line = Line((2, 25.0), (1, 0.0), None)
    steps = Steps(line, "wall", parts)  # type: ignore[arg-type]
    steps.wait()
    for number in range(5):
        clock[0] += 10
        parts["forward"] += number
        steps(0)  # tells of something else than a step
        steps(1)
    # two steps pass; then 10 s each, until 25 s are over
    assert [(turn.steps, turn.seconds, turn.parts) for turn in line.sent] == [
        (3, 30.0, {"forward": 2 + 3 + 4})
    ]
    with pytest.raises(Over):
        for _ in range(3):
            clock[0] += 10
            steps(1)
    assert [(turn.steps, turn.seconds) for turn in line.sent[1:]] == [(2, 20.0)]  # two at least


def test_a_way_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runner = Runner(OURS, 1, "wall")
    try:
        runner.begin(Case("mnist", "resnet8", "ce", images=40, side=4), None)
        with pytest.raises(RuntimeError, match=r"ours: .*H, W >= 8"):
            runner.turn(0.0, 1)
    finally:
        runner.close()
    assert not runner.process.is_alive()


def test_a_process_that_was_killed_is_told() -> None:
    runner = Runner(OURS, 1, "wall")
    try:
        assert runner.process.pid is not None
        os.kill(runner.process.pid, signal.SIGKILL)
        runner.process.join(20)
        runner.begin(TINY, None)
        with pytest.raises(RuntimeError, match="ours: its process ended"):
            runner.turn(0.0, 1)
        runner.end()
    finally:
        runner.close()


def test_what_is_timed_of_our_step_is_left_as_it_was() -> None:
    from pdm_lightning.data.module import PDMDataModule
    from pdm_lightning.lit import PDMModule

    before = [PDMDataModule.batch_at, PDMModule.training_step, torch.Tensor.backward, torch._fused_adamw_]
    parts: dict[str, float] = {}
    with pytest.raises(Over), training_ways.timed(parts):
        assert PDMDataModule.batch_at is not before[0]
        torch.ones(1, requires_grad=True).sum().backward()
        raise Over
    assert parts["backward"] > 0
    assert before == [
        PDMDataModule.batch_at,
        PDMModule.training_step,
        torch.Tensor.backward,
        torch._fused_adamw_,
    ]
