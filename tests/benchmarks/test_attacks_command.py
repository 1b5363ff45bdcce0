"""The command on a tiny network and images from files, its four files, and its error lines."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import attacks, figures, render
from benchmarks.entries import Claim
from benchmarks.families import FAMILIES
from benchmarks.machine import without_paths
from benchmarks.measure import Options, measure

GOLDEN = Path(__file__).parents[1] / "attacks" / "golden" / "conv.safetensors"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Options that name a small network's weights and eight images."""
    held = load_file(GOLDEN)
    weights = {name.removeprefix("weights."): v for name, v in held.items() if name.startswith("weights.")}
    save_file(weights, tmp_path / "net.safetensors")
    save_file({"x": held["x"][:8], "y": held["y"][:8]}, tmp_path / "images.safetensors")
    options = ["--model", "benchmarks.golden.network", "--weights", str(tmp_path / "net.safetensors")]
    return [*options, "--images", str(tmp_path / "images.safetensors"), "--out", str(tmp_path / "out")]


QUICK = ["--rounds", "2", "--alone", "0", "--families", "fgsm,bim"]


def test_the_command_writes_its_files(files: list[str], tmp_path: Path) -> None:
    before = torch.get_num_threads()
    assert attacks.main([*files, *QUICK, "--n-of", "bim=4"]) == 0
    assert torch.get_num_threads() == before
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "rows.csv").open(encoding="utf-8")))
    ours = [row for row in rows if row["path"]]
    assert [(row["family"], row["path"], row["n"]) for row in ours] == [
        ("fgsm", "engine", "8"),
        ("fgsm", "exact", "8"),
        ("bim", "engine", "4"),
        ("bim", "exact", "4"),
    ]
    for row in ours:
        assert row["error"] == ""
        assert len(row["rounds"].split()) == 2
        assert float(row["seconds"]) == pytest.approx(min(map(float, row["rounds"].split())), abs=1e-6)
        assert float(row["backwards"]) == FAMILIES[row["family"]].iterations
    assert float(ours[0]["engine_ratio"]) == 1
    told = json.loads((out / "settings.json").read_text())
    assert told["threads"] == 1
    assert told["model"] == "benchmarks.golden.network on images.safetensors"
    text = (out / "table.md").read_text()
    assert "## FGSM, eps .1 (8 images)" in text
    assert str(tmp_path) not in text + json.dumps(told)
    assert (out / "plot.png").stat().st_size > 5000


def test_weights_of_torch(files: list[str], tmp_path: Path) -> None:
    torch.save(load_file(tmp_path / "net.safetensors"), tmp_path / "net.pt")
    files[3] = str(tmp_path / "net.pt")
    assert attacks.main([*files, *QUICK, "--rounds", "0", "--families", "fgsm", "--peers", "art"]) == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--families", "fgsm,nonsense"], "--families nonsense: choose among fgsm, bim, cw"),
        (["--families", ""], "--families is empty"),
        (["--peers", "torchattack"], "--peers torchattack: choose among torchattacks, foolbox"),
        (["--n-of", "cw=many"], "--n-of cw=many: write family=number"),
        (["--n", "-1"], "--n must be at least 1"),
        (["--data", "mnits"], "--data mnits is unknown: choose one of cifar10"),
        (["--artifact", "a", "--model", "b"], "--artifact brings its own model"),
        (["--weights", "w.pt"], "--weights needs --model"),
        (["--model", "nowhere.net", "--train-steps", "1"], "--model nowhere.net cannot be imported"),
        (["--model", "benchmarks.golden.network", "--weights", "none.pt"], "no weights file none.pt"),
        (["--model-args", "{depth: 20}"], "--model-args is no JSON"),
        (["--images", "/nowhere/none.safetensors", "--train-steps", "1"], "no images file none.safetensors"),
        (["--artifact", "store/train/0123"], "holds no artifact train/0123"),
        (["--model", "benchmarks.golden.network", "--train-steps", "1"], "does not take images (1, 16, 16)"),
        (["--rounds", "-1"], "--rounds must not be negative"),
        (["--threads", "0"], "--threads must be at least 1"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: list[str], line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert attacks.main([*options, "--alone", "0", "--out", str(tmp_path)]) == 2
    (told,) = (text for text in capsys.readouterr().err.splitlines() if not text.startswith("..."))
    assert told.startswith("error: ")
    assert line in told


def test_paths_are_cut_off() -> None:
    assert without_paths("cannot open /home/me/data/x.pt: 1/2 of a/b") == "cannot open x.pt: 1/2 of a/b"
    assert without_paths("see https://example.org/a/b") == "see https://example.org/a/b"
    assert without_paths("C:\\Users\\me\\x.pt is broken") == "x.pt is broken"


def test_summary_tells_who_is_right(toys: Any) -> None:
    """Three peers: the fastest is wrong, the next leaves gradients, the slowest has no fault."""
    entries = [toys.entry(toys.coupled, "wrong"), toys.entry(toys.leaving_gradients, "untidy")]
    entries.append(toys.entry(toys.shift, "right"))
    ours = toys.entry(lambda model, x, y: Claim(x + 0.15), "ours")
    entries.append(type(ours)("ours", "ours", ours.build, "engine"))
    rows = measure(FAMILIES["l2"], entries, toys.subject(), Options(rounds=1), lambda text: None)
    for row, seconds in zip(rows, (1.0, 2.0, 4.0, 2.0), strict=True):
        row.seconds = [seconds, 9.0]
    lines = figures.summary(rows)
    assert [line["fastest peer"] for line in lines] == ["wrong", "untidy", "right"]
    assert [line["time ratio"] for line in lines] == [2.0, 1.0, 0.5]
    assert lines[2]["distance ratio"] == pytest.approx(0.75)
    text = render.markdown(rows, {"a": 1}, ["some library"])
    assert "Missing, their rows are left out: some library." in text
    assert "| l2 | engine | no fault | right | 0.5 | 0.75 |" in text
