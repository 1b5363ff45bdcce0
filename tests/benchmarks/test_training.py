"""The command on training speed: its ways run, its figures are what they say, and nothing is measured twice."""

from __future__ import annotations

import csv
import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import training, training_figures, training_growth
from benchmarks.training_cases import CASES, Case, available, images, spec
from benchmarks.training_ways import OURS, possible

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
    assert spec(TINY, precision="bf16") == told | {"precision": "bf16"}


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


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ([], training.WHOLE),
        (["--rounds", "3"], training.WHOLE),
        (["--quick"], training.PART),
        (["--cases", "mnist"], training.PART),
        (["--no-growth"], training.PART),
        (["--quick", "--out", "here"], Path("here")),
    ],
)
def test_a_part_is_not_written_over_the_whole(
    words: list[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(training, "run", lambda options, *_: asked.append(options.out) or 0)
    assert training.main(words) == 0
    assert asked == [out]


def test_what_cannot_be_read_or_written_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "possible", lambda: (OURS,))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\x01" * 64)
    assert available("mnist", tmp_path) == str(tmp_path)  # nothing is read to know
    words = ["--cases", "mnist resnet8 ce", "--rounds", "1", "--no-growth", "--root", str(tmp_path)]
    file = tmp_path / "file"
    file.write_text("")
    for out, told in (
        (tmp_path / "out", "error: ours: RuntimeError: mnist cannot be read ("),
        (file, "error: --out: file cannot be a folder (File exists)"),
        (file / "below", "error: --out: below cannot be a folder (Not a directory)"),
    ):
        assert training.main([*words, "--out", str(out)]) == 1
        error = capsys.readouterr().err
        assert error.startswith(told) and error.count("\n") == 1
    with pytest.raises(RuntimeError, match="mnist cannot be read"):
        images(Case("mnist", "resnet8", "ce"), str(tmp_path))


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
        assert line["n"] == "2"
        for name in ("ours/bare", "ours/usual", *(f"{way} images/s" for way in possible())):
            assert 0 < float(line[f"{name} lowest"]) <= float(line[name]) <= float(line[f"{name} highest"])
        assert sum(float(line[f"share {part}"]) for part in training_figures.PARTS) == pytest.approx(1)
        assert all(
            0 < float(line[f"share {part}"]) < 1 for part in ("gather", "forward", "backward", "optimizer")
        )
        assert all(float(line[f"{name} ms lowest"]) > 0 for name in ("checkpoint", "validation"))
        assert (line["every"], line["ends n"]) == ("1", "5")
    with (tmp_path / "growth.csv").open(encoding="utf-8") as file:
        points = list(csv.DictReader(file))
    assert [(point["axis"], point["batch"], point["defense"]) for point in points] == [
        ("batch", "2", "ce"),
        ("batch", "4", "ce"),
        ("batch", "2", "pdm"),
        ("batch", "4", "pdm"),
    ]
    for point in points:
        assert point["n"] == "2"
        assert (
            0 < float(point["ours ms lowest"]) <= float(point["ours ms"]) <= float(point["ours ms highest"])
        )
    text = (tmp_path / "table.md").read_text()
    assert code == int("What falls short of what was asked for:" in text)
    assert "What a study in segments of 100 steps adds" in text
    assert "(plot.png)" in text and "| cifar10 resnet8 pdm |" in text and str(tmp_path) not in text
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert json.loads((tmp_path / "settings.json").read_text())["images"] == "cifar10: noise, mnist: noise"
    # nothing is measured twice, and no process is begun for what is known
    monkeypatch.setattr(training, "Runner", None)
    assert training.run(options, cases, {"cifar10": None, "mnist": None}) == code  # type: ignore[arg-type]
    # and no plot of another run stays beside a table without one
    options.no_growth = True
    training.run(options, cases, {"cifar10": None, "mnist": None})  # type: ignore[arg-type]
    assert "plot.png" not in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "plot.png").exists() and not (tmp_path / "growth.csv").exists()


def test_processes_begin_when_they_are_needed() -> None:
    with ExitStack() as stack:
        ways = training.Ways(stack, SimpleNamespace(threads=1, clock="wall"))  # type: ignore[arg-type]
        assert not ways.runners
