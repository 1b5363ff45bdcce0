"""What cannot be exported, in one line each."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detection import (
    KDE,
    KNN,
    LID,
    MSP,
    Mahalanobis,
    ODINInput,
)
from detection.graph import EXPORTABLE
from pdm_lightning.export import export_onnx, export_program
from pdm_lightning.models import Classifier
from tests.pdm_lightning.test_export import CLASSES, DETECTORS, classifier, fitted, images


def test_other_detectors_are_refused_by_name(tmp_path: Path) -> None:
    class Mine(KDE):
        pass

    for other in (LID(["embedding"]), ODINInput(), Mine()):
        with pytest.raises(ValueError, match=f"{type(other).__name__} has no graph.*KDE, KNN, Mahalanobis"):
            export_program(classifier(), other, 0.0, images(2, 0), tmp_path / "watched.pt2")
    assert {type(detector).__name__ for detector in DETECTORS.values()} == set(EXPORTABLE)
    for kind in (KDE, KNN, MSP, Mahalanobis):
        with pytest.raises(RuntimeError, match="call fit or load_state_dict first"):
            export_program(classifier(), kind(), 0.0, images(2, 0), tmp_path / "watched.pt2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": float("nan")}, "threshold must be a finite score"),
        ({"example": torch.rand(3, 8, 8)}, r"must be \(N, C, H, W\) float"),
        ({"example": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, r"must be \(N, C, H, W\) float"),
        ({"example": torch.zeros(0, 3, 8, 8)}, r"must be \(N, C, H, W\) float"),
        ({"example": 255 * torch.rand(2, 3, 8, 8)}, "divide by 255"),
        ({"example": torch.full((2, 3, 8, 8), float("nan"))}, "divide by 255"),
        ({"path": "watched.bin"}, r"must end in \.pt2"),
        ({"path": "absent/watched.pt2"}, "there is no folder"),
        ({"classes": ["a"]}, "1 class names for 4 classes"),
        ({"fpr": 1.0}, "false-positive rate"),
    ],
)
def test_misuse_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    detector, threshold = fitted("msp")
    given = {"threshold": threshold, "example": images(2, 0), "path": "watched.pt2"} | change
    given["path"] = tmp_path / given["path"]
    with pytest.raises(ValueError, match=message) as caught:
        export_program(classifier(), detector, **given)
    assert "\n" not in str(caught.value)


def test_a_forward_that_looks_at_values_is_refused(tmp_path: Path) -> None:
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(192, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            return self.last(flat if float(flat.sum()) > 0 else -flat)

    model = Classifier.wrap(Choosy(), "last", CLASSES)
    with pytest.raises(RuntimeError, match="PyTorch cannot follow the classifier") as caught:
        export_program(model, *fitted("msp"), images(2, 0), tmp_path / "watched.pt2")
    assert "\n" not in str(caught.value) and not (tmp_path / "watched.pt2").exists()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"needs onnx and onnxscript: pip install 'pdm-lightning\[export\]'"
    ):
        export_onnx(classifier(), *fitted("msp"), images(2, 0), tmp_path / "watched.onnx")


@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def full(program: Any, path: Path, **more: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", full)
    path = tmp_path / "watched.pt2"
    if there:
        path.write_bytes(b"the old one")
    with pytest.raises(OSError, match="No space left"):
        export_program(classifier(), *fitted("msp"), images(2, 0), path)
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"the old one"] * there


def test_links_stay_links_and_devices_devices(tmp_path: Path) -> None:
    (tmp_path / "real.pt2").write_bytes(b"the old one")
    (tmp_path / "link.pt2").symlink_to("real.pt2")
    export_program(classifier(), *fitted("msp"), images(2, 0), tmp_path / "link.pt2")
    assert (tmp_path / "link.pt2").is_symlink() and (tmp_path / "real.pt2").stat().st_size > 1000
    os.mkfifo(tmp_path / "pipe.pt2")
    with pytest.raises(ValueError, match=r"pipe.pt2 is no regular file"):
        export_program(classifier(), *fitted("msp"), images(2, 0), tmp_path / "pipe.pt2")
    assert (tmp_path / "pipe.pt2").is_fifo()
