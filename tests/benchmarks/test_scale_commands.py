"""The commands on kernels larger than memory, and on what scoring costs beside the forward pass."""

from __future__ import annotations

import csv
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import kernel_parts, kernels, scoring
from benchmarks.kernel_parts import Sizes
from detection import mapped

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
SMALL = ["--classes", "3", "--kernels", "6", "--dim", "4", "--n", "10", "--held", "5", "--checked", "10"]
SIZES = Sizes(classes=3, kernels=6, dim=4, n=10, held=5, checked=10, threads=1, seed=0)


@linux
@pytest.mark.slow
def test_kernels(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert kernels.main([*SMALL, "--rules", "0.7", "--folder", str(tmp_path), "--out", str(out)]) == 0
    rows = json.loads((out / "rows.json").read_text())["rows"]
    assert [row["part"] for row in rows] == ["features", "fit", "score", "check"]
    assert all(0 < row["resident GiB"] < 4 for row in rows)
    assert rows[1]["bandwidth"] == 0.7 and rows[3]["equal"] is True and rows[3]["largest error"] < 1e-12
    assert list(tmp_path.iterdir()) == [out]  # nothing of the embeddings stays


@pytest.mark.parametrize("found", [{"resident GiB": 4.1}, {"largest error": 1e-6}, {"order": 1}])
def test_too_much_memory_or_another_value_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]
) -> None:
    good = {"resident GiB": 3.9, "largest error": 1e-13, "order": 0}

    def run(part: str, rule: str, *_: Any) -> dict[str, Any]:
        line = {"part": part, "rule": rule, **good, **found}
        return line if part == "check" else {name: line[name] for name in ("part", "rule", "resident GiB")}

    monkeypatch.setattr(kernels, "_run", run)
    assert kernels.main([*SMALL, "--out", str(tmp_path)]) == 1
    found = good
    assert kernels.main([*SMALL, "--out", str(tmp_path)]) == 0
    assert kernels.main(["--kernels", "1"]) == 2


def test_a_part_that_fails_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: Any) -> dict[str, Any]:
        raise subprocess.CalledProcessError(1, "fit", stderr="Traceback\n...\nMemoryError: no room\n")

    monkeypatch.setattr(kernels, "_run", run)
    assert kernels.main([*SMALL, "--folder", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: a part failed: MemoryError: no room\n"
    assert not list(tmp_path.iterdir())


def test_what_scores_are_held_to(tmp_path: Path) -> None:
    """One kernel at distance 2 in two dimensions, h = 1: -2 - log(2 pi); a score that is not that is told."""
    sizes = Sizes(classes=1, kernels=1, dim=2, n=1, held=1, checked=1, threads=1, seed=0)
    state = {"kernels": torch.zeros(1, 2), "bandwidth": torch.ones(1, dtype=torch.float64)}
    mapped.save(state, tmp_path / "state.safetensors")
    test = {"test.embeddings": torch.tensor([[2.0, 0.0]]), "test.labels": torch.tensor([0])}
    mapped.save(test, tmp_path / "features.safetensors")
    for wrong in (0.0, 1e-3):
        scores = torch.tensor([2 + math.log(2 * math.pi) + wrong], dtype=torch.float64)
        mapped.save({"scores": scores}, tmp_path / "scores.safetensors")
        error = kernel_parts.check(sizes, tmp_path, "")["largest error"]
        assert error == pytest.approx(wrong / (2 + math.log(2 * math.pi)), rel=1e-9, abs=1e-15)


def test_embeddings_depend_on_class_split_and_seed_alone() -> None:
    one = kernel_parts.draw(SIZES, 1, 0, 4)
    assert torch.equal(one, kernel_parts.draw(SIZES, 1, 0, 4)) and one.dtype == torch.float32
    other = [kernel_parts.draw(SIZES, 2, 0, 4), kernel_parts.draw(SIZES, 1, 1, 4)]
    assert not any(torch.equal(one, drawn) for drawn in other)


def test_scoring(tmp_path: Path) -> None:
    sizes = ["--classes", "4", "--kernels", "3", "--n", "9", "--images", "3", "--batch", "2", "--side", "32"]
    code = scoring.main([*sizes, "--rounds", "2", "--folder", str(tmp_path), "--out", str(tmp_path / "out")])
    with (tmp_path / "out/rows.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["way"] for line in lines] == ["forward", "score, all at once", "score, in batches"]
    assert [int(line["images"]) for line in lines] == [3, 9, 9]
    assert code == int(any(float(line["share"]) > scoring.SHARE for line in lines[1:]))
    assert "threads" in json.loads((tmp_path / "out/settings.json").read_text())
    assert scoring.main(["--n", "0"]) == 2


def test_shares_are_of_one_image() -> None:
    ways = [
        scoring.Way("forward", 10, lambda: None, [1.0, 2.0, 3.0]),
        scoring.Way("score", 100, lambda: None, [1.0, 8.0, 1.5]),
    ]
    first, second = scoring.records(ways)
    assert first["ms an image"] == pytest.approx(200) and first["share"] == 1
    assert second["ms an image"] == pytest.approx(15) and second["share"] == pytest.approx(0.075)
    assert (second["lowest"], second["highest"]) == pytest.approx((0.05, 0.4))
