"""The figures of the command on training speed: what comes of turns, of a segment's ends, and of the growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import training, training_ends, training_figures, training_growth
from benchmarks.training_cases import Case
from benchmarks.training_ways import BARE, BF16, OURS, USUAL, WAYS, Turn

PARTS = {"gather": 0.02, "augment": 0.02, "forward": 0.3, "step": 0.34, "backward": 0.5, "optimizer": 0.02}


def turns(rate: list[float]) -> list[Turn]:
    return [Turn(2, 2 / each, 2 / each, {}) for each in rate]


def own() -> list[Turn]:
    return [Turn(2, 1.0, 1.0, PARTS), Turn(2, 0.5, 1.0, PARTS), Turn(2, 1.0, 2.0, PARTS)]


def held() -> dict[str, list[Turn]]:
    return {
        OURS: own(),
        BF16: turns([4.0, 4.0, 3.0]),
        BARE[0]: turns([1.0, 1.0, 1.0]),
        BARE[1]: turns([2.5, 5.0, 2.0]),
        USUAL[0]: turns([1.6, 1.6, 1.6]),
        USUAL[1]: turns([1.0, 9.0, 1.0]),
    }


def spread(line: dict[str, Any], name: str) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return line[name], line[f"{name} lowest"], line[f"{name} highest"]


def test_ratios_are_of_the_faster_peer() -> None:
    line = training_figures.record({"model": "resnet20", "data": "cifar10"}, "c", 10, held())
    assert [line[f"{way} images/s"] for way in WAYS] == pytest.approx([20, 40, 10, 25, 16, 10])
    assert spread(line, "ours images/s") == pytest.approx((20, 20, 40))
    assert (line["best bare"], line["best usual"], line["n"]) == (BARE[1], USUAL[0], 3)
    assert spread(line, "ours/bare") == pytest.approx((0.8, 0.8, 1.0))
    assert spread(line, "ours/usual") == pytest.approx((1.25, 1.25, 2.5))
    assert spread(line, "bare/usual") == pytest.approx((1.5625, 1.25, 3.125))
    assert spread(line, "bf16/ours") == pytest.approx((1.5, 1.0, 2.0))
    # by the wall clock: of a round's own seconds
    assert spread(line, "share loss and log") == pytest.approx((0.04, 0.02, 0.04))
    assert spread(line, "share loop") == pytest.approx((0.1, 0.1, 0.55))
    assert "share step" not in line
    without = held()
    del without[BF16]
    assert "bf16/ours" not in training_figures.record({}, "c", 10, without)


def test_costs_of_an_image_have_their_spread() -> None:
    line = training_figures.costs(10, {way: held()[way] for way in (OURS, *BARE)})
    assert spread(line, "ours ms") == pytest.approx((50, 25, 50))
    assert spread(line, "bare ms") == pytest.approx((40, 20, 50))
    assert spread(line, "ours/bare") == pytest.approx((0.8, 0.8, 1.0))
    assert (line["n"], line["best bare"]) == (3, BARE[1])


def case(data: str, model: str, bare: float, usual: float) -> dict[str, Any]:
    line: dict[str, Any] = {"name": f"{data} {model} ce", "data": data, "model": model}
    for name, value in (("ours/bare", bare), ("ours/usual", usual), ("bare/usual", 2.0)):
        line |= {name: value, f"{name} lowest": value - 0.1, f"{name} highest": value + 0.1}
    return line


@pytest.mark.parametrize(
    ("data", "model", "bare", "usual", "expected"),
    [
        ("cifar10", "resnet20", 0.92, 1.15, []),
        ("cifar10", "resnet56", 0.919, 1.15, ["0.919 (0.819-1.019) of the bare passes' speed, 0.92"]),
        ("cifar10", "resnet56", 0.95, 1.1, ["1.100 (1.000-1.200) times the usual pipeline, 1.15"]),
        ("mnist", "resnet8", 0.95, 1.39, ["1.390 (1.290-1.490) times the usual pipeline, 1.4"]),
        ("mnist", "resnet20", 0.95, 1.38, ["1.380 (1.280-1.480) times the usual pipeline, 1.4"]),
        ("mnist", "resnet20", 0.9, 1.38, ["0.900 (0.800-1.000) of", "1.380 (1.280-1.480) times"]),
        ("mnist", "resnet56", 0.95, 0.7, []),  # nothing was asked of it
    ],
)
def test_what_falls_short_is_named(
    data: str, model: str, bare: float, usual: float, expected: list[str]
) -> None:
    found = training_figures.short([case(data, model, bare, usual), case("mnist", "resnet8", 1, 2)], [])
    assert len(found) == len(expected)
    for sentence, start in zip(found, expected, strict=True):
        assert sentence.startswith(f"{data} {model} ce: {start}")
        assert sentence.endswith(" was asked for; its ceiling, bare/usual, is 2.000 (1.900-2.100).")


def test_points_of_the_growth_fall_short_too() -> None:
    at = {"images": 20000, "classes": 10, "side": 16, "batch": 128}
    slow = {
        "name": "cifar10 resnet8 ce",
        "ours/bare": 0.7,
        "ours/bare lowest": 0.6,
        "ours/bare highest": 0.8,
        **at,
    }
    grown = [{"axis": "side"} | slow, {"axis": "classes"} | slow, slow | {"ours/bare": 0.92, "side": 32}]
    assert training_figures.short([], grown) == [
        "cifar10 resnet8 ce (images 20000, classes 10, side 16, batch 128): 0.700 (0.600-0.800) of the bare passes' "
        "speed, 0.92 was asked for."
    ]


def test_what_a_segments_end_adds() -> None:
    tiny = Case("cifar10", "resnet8", "pdm", batch=4, images=40, side=8)
    end = {"checkpoint": [1.0, 0.5, 2.0], "validation": [10.0, 20.0, 10.0], "every": 2}
    line = training_ends.added(tiny, 80.0, end)  # 100 steps of 8 images take 10 s
    assert (line["ends n"], line["every"]) == (3, 2)
    assert spread(line, "checkpoint ms") == pytest.approx((1000, 500, 2000))
    assert spread(line, "adds checkpoint") == pytest.approx((0.1, 0.05, 0.2))
    assert spread(line, "validation ms") == pytest.approx((10000, 10000, 20000))
    assert spread(line, "adds validation") == pytest.approx((0.5, 0.5, 1.0))


def test_checkpoints_and_validations_are_timed_where_they_happen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a clock that steps where a checkpoint was written, and where a batch was validated."""
    tiny = Case("cifar10", "resnet8", "ce", batch=4, images=40, side=8)
    seconds = [0.0]
    save, look = training_ends.Segments.on_train_epoch_end, training_ends.PDMModule.validation_step

    def saved(segments: Any, *arguments: Any) -> None:
        save(segments, *arguments)
        seconds[0] += 3 * segments.begun.checkpoint.is_file()

    def looked(*arguments: Any) -> None:
        look(*arguments)
        seconds[0] += 10

    monkeypatch.setattr(training_ends.Segments, "on_train_epoch_end", saved)
    monkeypatch.setattr(training_ends.PDMModule, "validation_step", looked)
    monkeypatch.setattr(training_ends, "now", lambda _: seconds[0])
    # ten validation images in batches of four; the first segment is left out
    assert training_ends._measured(tiny, None, "wall", tmp_path) == {
        "checkpoint": [3.0] * 5,
        "validation": [30.0] * 5,
        "every": 1,
    }
    assert training_ends.Segments.on_train_epoch_end is saved


def test_growth_runs_over_one_thing_at_a_time() -> None:
    found = list(training_growth.points())
    usual = Case("cifar10", "resnet8", "ce", side=32)
    for axis, point in found:
        changed = {key for key, value in point.as_dict().items() if value != usual.as_dict()[key]}
        assert changed <= {axis, "defense"}
    assert {axis for axis, _ in found} == {"images", "classes", "side", "batch"}
    assert len(found) == len({(axis, point) for axis, point in found}) == 26
    # ten classes and 32 pixels are the same training, and measured once
    assert len({point for _, point in found}) == 24


def test_growth_is_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def take(self: Any, point: Case, root: Any, ways: Any, rounds: int, seconds: float) -> Any:
        asked.append((root, ways, rounds, seconds))
        return {way: held()[way] for way in ways}

    monkeypatch.setattr(training.Ways, "turns", take)
    for rounds, seconds in ((9, 1.0), (2, 0.1)):
        options = training.parser().parse_args(["--rounds", str(rounds), "--seconds", str(seconds)])
        assert training.Ways(None, options).point(Case("cifar10", "resnet8", "ce"))["n"] == 3  # type: ignore[arg-type]
    assert asked == [(None, (OURS, *BARE), 5, 0.5), (None, (OURS, *BARE), 2, 0.1)]
