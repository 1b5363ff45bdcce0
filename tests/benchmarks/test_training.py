"""The command on training speed: its ways run, its figures are what they say, and nothing is measured twice."""

from __future__ import annotations

import csv
import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import training, training_ends, training_growth, training_render, training_ways
from benchmarks.training_cases import CASES, Case, available, images, spec
from benchmarks.training_usual import Pairs, single_images
from benchmarks.training_ways import BARE, OURS, USUAL, WAYS, Over, Runner, Steps, Turn

TINY = Case("cifar10", "resnet8", "pdm", batch=4, images=40, side=8)


def test_cases_are_those_that_were_asked_for() -> None:
    names = {case.name for case in CASES}
    for data, model in (
        ("mnist", "resnet8"),
        ("cifar10", "resnet20"),
        ("cifar10", "resnet56"),
        ("mnist", "resnet56"),
    ):
        assert {f"{data} {model} ce", f"{data} {model} pdm"} <= names
    assert len(names) == len(CASES)
    assert (Case("mnist", "resnet8", "ce").shape, TINY.shape) == ((1, 28, 28), (3, 8, 8))
    assert (TINY.seen, Case("mnist", "resnet8", "ce").seen) == (8, 128)


def test_the_specification_is_a_studys_own() -> None:
    told = spec(TINY)
    assert told["augment"] == {"crop": 4, "flip": True}
    assert told["defense"]["use"] == ["rce", "siamese", "rvl"]
    assert (told["train"]["batch_size"], told["model"]["depth"]) == (4, 8)
    assert told["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert spec(Case("mnist", "resnet20", "ce"))["augment"] == {"crop": 0, "flip": False}


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


def turns(rate: list[float], **parts: float) -> list[Turn]:
    return [Turn(2, 2 / each, 2 / each, parts) for each in rate]


def test_ratios_are_of_the_faster_peer() -> None:
    parts = {
        "gather": 0.02,
        "augment": 0.02,
        "forward": 0.3,
        "step": 0.34,
        "backward": 0.5,
        "optimizer": 0.02,
    }
    own = [Turn(2, 1.0, 1.0, parts), Turn(2, 0.5, 1.0, parts), Turn(2, 1.0, 1.0, parts)]
    held = {
        OURS: own,
        BARE[0]: turns([1.0, 1.0, 1.0]),
        BARE[1]: turns([2.5, 5.0, 2.0]),
        USUAL[0]: turns([1.6, 1.6, 1.6]),
        USUAL[1]: turns([1.0, 9.0, 1.0]),
    }
    line = training_render.record({"model": "resnet20", "data": "cifar10"}, "c", 10, held)
    assert [line[f"{way} images/s"] for way in WAYS] == pytest.approx([20, 10, 25, 16, 10])
    assert (line["best bare"], line["best usual"]) == (BARE[1], USUAL[0])
    assert (line["ours/bare"], line["ours/bare lowest"], line["ours/bare highest"]) == pytest.approx(
        (0.8, 0.8, 1.0)
    )
    assert (line["ours/usual"], line["ours/usual lowest"], line["ours/usual highest"]) == pytest.approx(
        (1.25, 1.25, 2.5)
    )
    # by the wall clock: 1 s a round
    assert line["share loss and log"] == pytest.approx(0.04)
    assert line["share loop"] == pytest.approx(1 - 0.02 - 0.02 - 0.34 - 0.5 - 0.02)
    assert "share step" not in line


@pytest.mark.parametrize(
    ("data", "model", "bare", "usual", "short"),
    [
        ("cifar10", "resnet20", 0.92, 1.15, None),
        ("cifar10", "resnet20", 0.46, 1.15, 0.5),
        ("cifar10", "resnet20", 0.95, 0.575, 0.5),
        ("mnist", "resnet8", 0.95, 0.7, 0.5),
        ("mnist", "resnet56", 0.95, 0.7, None),  # nothing was asked of it
    ],
)
def test_what_was_asked_for(data: str, model: str, bare: float, usual: float, short: float | None) -> None:
    line = {"data": data, "model": model, "ours/bare": bare, "ours/usual": usual}
    assert training_render.short(line) == (None if short is None else pytest.approx(short))


def test_the_end_of_a_segment_is_what_its_next_step_takes_longer() -> None:
    """Segments of four steps of 1 s; 3 s at each end, and once 10 s of validation besides."""
    marks = [1.0, 2.0, 3.0, 4.0, 8.0, 9.0, 10.0, 11.0, 25.0, 26.0, 27.0, 28.0]
    assert training_ends.split(marks, [(12.0, 22.0)]) == 3.0
    line = {"ours images/s": 80.0, "end": 1.0, "validation": 10.0, "every": 2}
    # 10 s are 100 steps of 8
    assert training_ends.added(TINY, line) == {"adds end": 0.1, "adds validation": 0.5}


def test_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert [case.name for case in training.chosen("mnist resnet8", False)] == [
        "mnist resnet8 ce",
        "mnist resnet8 pdm",
    ]
    assert {case.model for case in training.chosen("", True)} == {"resnet8", "resnet20"}
    assert len(training.chosen("", False)) == len(CASES)
    for wrong in (["--cases", "imagenet"], ["--rounds", "0"], ["--seconds", "0"], ["--threads", "0"]):
        assert training.main([*wrong, "--out", str(tmp_path)]) == 2
        assert capsys.readouterr().err.startswith("error: --cases takes parts of mnist resnet8 ce")
    assert available("mnist", tmp_path) is None
    assert available("mnist", None) is None


def test_growth_runs_over_one_thing_at_a_time() -> None:
    found = list(training_growth.points())
    usual = Case("cifar10", "resnet8", "ce")
    for axis, case in found:
        changed = {key for key, value in case.as_dict().items() if value != usual.as_dict()[key]}
        assert changed <= {axis, "defense"}
    assert {axis for axis, _ in found} == {"images", "classes", "side", "batch"}
    assert len(found) == len({(axis, case) for axis, case in found})


def test_growth_leaves_the_first_steps_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 200.0, 201.0, 203.0, 206.0, 300.0])
    monkeypatch.setattr(training_growth, "now", lambda _: next(clock))

    def train(step: Any) -> None:
        while True:
            step(0)
            step(1)

    assert training_growth.seconds(train, 3, "wall") == 2.0  # of 1, 2 and 3


def test_a_way_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runner = Runner(OURS, 1, "wall")
    try:
        runner.begin(Case("mnist", "resnet8", "ce", images=40, side=4), None)
        with pytest.raises(RuntimeError, match=r"ours: .*H, W >= 8"):
            runner.turn(0.0, 1)
    finally:
        runner.close()
    assert not runner.process.is_alive()


@pytest.mark.slow
def test_every_way_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On images of 8x8, pairs and single ones, one case after the other in the same processes."""
    cases = [TINY, Case("mnist", "resnet8", "ce", batch=4, images=40, side=8)]
    growth = [
        ("batch", Case("cifar10", "resnet8", d, batch=b, images=40, side=8))
        for d in ("ce", "pdm")
        for b in (2, 4)
    ]
    monkeypatch.setattr(training_growth, "points", lambda: iter(growth))
    options = SimpleNamespace(
        rounds=2,
        seconds=0.01,
        threads=1,
        clock="wall",
        quick=True,
        no_growth=False,
        fresh=False,
        out=tmp_path,
    )
    code = training.run(options, cases, {"cifar10": None, "mnist": None})  # type: ignore[arg-type]
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == ["cifar10 resnet8 pdm", "mnist resnet8 ce"]
    for line in lines:
        assert all(float(line[f"{way} images/s"]) > 0 for way in WAYS)
        assert sum(float(line[f"share {part}"]) for part in training_render.PARTS) == pytest.approx(1)
        assert all(
            0 < float(line[f"share {part}"]) < 1 for part in ("gather", "forward", "backward", "optimizer")
        )
    missed = (
        training_render.short({k: float(v) if k.startswith("ours/") else v for k, v in lines[1].items()})
        is not None
    )
    assert code == int(missed or float(lines[0]["ours/bare"]) < training_render.SHARE)
    with (tmp_path / "growth.csv").open(encoding="utf-8") as file:
        assert [(line["axis"], line["batch"], line["defense"]) for line in csv.DictReader(file)] == [
            ("batch", "2", "ce"),
            ("batch", "4", "ce"),
            ("batch", "2", "pdm"),
            ("batch", "4", "pdm"),
        ]
    text = (tmp_path / "table.md").read_text()
    assert all(float(line["validation"]) > 0 and float(line["every"]) == 1 for line in lines)
    assert "What a study in segments of 100 steps adds" in text
    assert "(plot.png)" in text and "| cifar10 resnet8 pdm |" in text and str(tmp_path) not in text
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert json.loads((tmp_path / "settings.json").read_text())["images"] == "cifar10: noise, mnist: noise"
    # nothing is measured twice, and no process is begun for what is known
    monkeypatch.setattr(training, "Runner", None)
    assert training.run(options, cases, {"cifar10": None, "mnist": None}) == code  # type: ignore[arg-type]


def test_processes_begin_when_they_are_needed() -> None:
    with ExitStack() as stack:
        ways = training.Ways(stack, SimpleNamespace(threads=1, clock="wall"))  # type: ignore[arg-type]
        assert not ways.runners


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
