"""``pdml detect`` where images, names or streams are not as they should be."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pdm_lightning.cli import main
from pdm_lightning.guard import Guard
from pdm_lightning.models import Classifier
from tests.pdm_lightning.guard.test_commands import Capture, pdml, rows


@pytest.mark.parametrize("detector", ["kde", "msp", "feature_squeezing"])
def test_an_image_without_a_finite_score_is_named_and_the_others_are_scored(
    detector: str, classifier: Any, place: Path, stripes: Any, monkeypatch: Any, capsys: Capture
) -> None:
    Guard.fit(classifier, stripes(293), fpr=0.1, detector=detector).save("guard.safetensors")
    Image.new("L", (8, 8), 255).save("white.png")
    real = Classifier.embed_and_logits

    def overflowing(self: Classifier, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """White images overflow."""
        z, logits = real(self, x)
        white = x.amin(dim=(1, 2, 3)) == 1
        return z.masked_fill(white[:, None], torch.nan), logits.masked_fill(white[:, None], torch.nan)

    names = ["images/a/0000.png", "white.png", "images/a/0003.png"]
    guard = Guard.load("guard.safetensors")
    good = guard.score(names[::2])
    monkeypatch.setattr(Classifier, "embed_and_logits", overflowing)
    found = guard.score(names)
    assert found.score[::2].tolist() == pytest.approx(good.score.tolist())
    assert found.score[1].isnan() and found.flagged[1] and float(found.p_value[1]) == 1 / 101
    assert main(["detect", "guard.safetensors", *names]) == 1
    told = capsys.readouterr()
    assert [row["file"] for row in rows(told.out)] == names[::2]
    assert "pdml: cannot score white.png: the classifier's outputs are not finite" in told.err
    assert told.err.splitlines()[-1].startswith("2 images, ") and "1 not scored" in told.err


def test_a_name_forges_no_row_and_loses_no_letter(fitted: Path) -> None:
    """Carriage returns are quoted, and kept where names of a list end in NUL."""
    names = ["x\rfake,a,1,0,1,false.png", "ends\r", "two\nlines", "last"]
    for name in names:
        shutil.copy("images/a/0000.png", name)
    done = pdml("detect", "guard.safetensors", "-", "--null", "--output", "out.csv", input="\0".join(names))
    assert done.returncode == 0, done.stderr
    with open("out.csv", encoding="utf-8", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == names
    done = pdml("detect", "guard.safetensors", "-", input="images/a/0000.png\r\n\nlast")
    assert [row["file"] for row in rows(done.stdout)] == ["images/a/0000.png", "last"]


@pytest.mark.parametrize(
    ("closed", "told"), [("<&-", "standard input is closed"), (">&-", "standard output is closed")]
)
def test_closed_streams_are_told(fitted: Path, closed: str, told: str) -> None:
    command = f'exec "{sys.executable}" -m pdm_lightning detect guard.safetensors - {closed}'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_a_folder_and_a_file_of_any_name(model: tuple[str, ...], place: Path, capsys: Capture) -> None:
    """The card gets a printable name of the images, and shows that of the file as it is."""
    name = os.fsdecode(b"tab\tcaf\xe9")
    (place / name).symlink_to("images")
    assert main(["fit", *model, name, "--fpr", "0.1", "--output", "a[bold]b.safetensors"]) == 0
    assert Guard.load("a[bold]b.safetensors").provenance.data == "tab?caf?"
    assert "Guard a[bold]b.safetensors" in capsys.readouterr().out
    assert main(["detect", "a[bold]b.safetensors", "images/a"]) == 0
    assert "; of 73 held-out clean images " in capsys.readouterr().err
