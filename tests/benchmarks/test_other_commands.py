"""The commands on density, scaling and golden images; and that nothing packaged needs the benchmarks."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import golden, kde, scaling

ROOT = Path(__file__).parents[2]


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_kde(tmp_path: Path) -> None:
    sizes = ["--classes", "3", "--kernels", "20", "--dim", "4", "--n", "30", "--rounds", "2"]
    assert kde.main([*sizes, "--out", str(tmp_path)]) == 0
    found = {line["way"]: line for line in lines(tmp_path / "rows.csv")}
    assert list(found) == ["ours", "ours, with gradient", "scikit-learn, kd_tree", "scikit-learn, ball_tree"]
    for line in found.values():
        assert float(line["largest relative error"]) < 1e-9
        assert line["equal"] == "True"
    assert float(found["scikit-learn, kd_tree"]["times kd_tree"]) == 1


def test_the_density_that_all_are_held_to() -> None:
    """One kernel at distance 2 in two dimensions, h = 1: -2 - log(2 pi)."""
    held = kde.Problem(
        torch.zeros(1, 1, 2).double(), torch.tensor([[2.0, 0.0]]).double(), torch.tensor([0]), 1.0
    )
    assert kde.exact(held).tolist() == pytest.approx([-2 - np.log(2 * np.pi)])


def test_a_wrong_density_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = kde.exact
    monkeypatch.setattr(kde, "exact", lambda held: truth(held) + 1e-6)
    sizes = ["--classes", "2", "--kernels", "5", "--dim", "2", "--n", "4", "--rounds", "1"]
    assert kde.main([*sizes, "--out", str(tmp_path)]) == 1
    assert kde.main(["--n", "0"]) == 2


def test_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scaling.AXES, "images", (1, 2))
    monkeypatch.setitem(scaling.AXES, "iterations", (2, 4))
    assert scaling.main(["--axes", "images,iterations", "--rounds", "1", "--out", str(tmp_path)]) == 0
    found = lines(tmp_path / "rows.csv")
    assert len(found) == 2 * 2 * 4 * 2
    bim = [line for line in found if line["attack"] == "BIM" and line["axis"] == "iterations"]
    assert [float(line["passes"]) for line in bim] == [2, 2, 4, 4]
    assert (tmp_path / "plot.png").stat().st_size > 5000
    assert scaling.main(["--axes", "colour"]) == 2


def test_golden_makes_the_committed_images_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("foolbox")
    pytest.importorskip("art")
    monkeypatch.setattr(golden, "COUNT", 2)
    assert golden.main(["--out", str(tmp_path / "new.safetensors")]) == 0
    new, old = load_file(tmp_path / "new.safetensors"), load_file(ROOT / golden.PLACE)
    assert new.keys() == old.keys()
    # a training in float32 differs a little between machines, and a pixel of an image may with it
    assert torch.equal(new["x"], old["x"][:2])
    for name in ("foolbox.fgsm", "art.fgsm", "foolbox.bim", "art.bim"):
        assert ((new[name] - old[name][:2]).abs() > 1e-6).double().mean() < 0.05


def test_golden_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.peers.missing", lambda names: ["foolbox"])
    assert golden.main([]) == 2
    assert "golden images need foolbox" in capsys.readouterr().err


def test_no_package_needs_the_benchmarks() -> None:
    uses = re.compile(r"^\s*(from|import) benchmarks\b", re.MULTILINE)
    packages = ("attacks", "detection", "pdm_lightning", "hydra_plugins")
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 80
    assert [path for path in files if uses.search(path.read_text(encoding="utf-8"))] == []
