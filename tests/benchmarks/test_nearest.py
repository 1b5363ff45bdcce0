"""How near the minimum-norm attack comes: the command, its file an image a line, its table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from attacks import CarliniWagner
from benchmarks import nearest

pytestmark = pytest.mark.slow


@pytest.fixture
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """C&W with a few iterations in place of 9 x 1000."""
    cheap = nearest.ATTACKS | {"cw": CarliniWagner(max_iterations=10, binary_search_steps=3, lr=0.1)}
    monkeypatch.setattr(nearest, "ATTACKS", cheap)


def test_the_command_writes_a_file_a_model_and_one_table(
    lean: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--train-steps", "30", "--n", "6", "--name", "tiny net", "--out", str(tmp_path)]
    assert nearest.main(words) == 0
    lines = list(csv.DictReader((tmp_path / "tiny_net.csv").open()))
    assert len(lines) == 6
    table = (tmp_path / "table.md").read_text()
    assert table.count("tiny net") == 3
    mean = sum(float(line["fast_passes"]) for line in lines) / 6
    assert f"| {mean:.1f} |" in table
    # again: what the file has is not measured anew
    capsys.readouterr()
    assert nearest.main(words) == 0
    assert "..." not in capsys.readouterr().err


def test_another_number_of_images_is_measured_anew(lean: None, tmp_path: Path) -> None:
    words = ["--train-steps", "30", "--name", "tiny", "--out", str(tmp_path)]
    for count in (6, 4):
        assert nearest.main([*words, "--n", str(count)]) == 0
        assert len(list(csv.DictReader((tmp_path / "tiny.csv").open()))) == count


def test_the_ratio_is_that_of_the_means_where_both_succeed(tmp_path: Path) -> None:
    head = "cw_l2,cw_passes,cw_success,fast_l2,fast_passes,fast_success"
    (tmp_path / "one.csv").write_text(f"{head}\n2,100,1,1,5,1\n4,100,1,2,5,1\n9,100,0,1,5,1\n")
    assert "| 0.500 [0.500, 0.500] | 20 | 1800 |" in nearest.summary(tmp_path)


def test_a_stopped_run_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("cw_l2,cw_passes,cw_success\n1.5,100,1\n2.5,300,1\n")
    table = nearest.summary(tmp_path)
    assert "| C&W 9 x 1000 | 100 % | 2 |" in table
    assert "min-norm" not in table


def test_a_wrong_number_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert nearest.main(["--n", "0"]) == 2
    assert "--n and --threads" in capsys.readouterr().err
