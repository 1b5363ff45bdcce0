"""``pdml fit``, ``detect`` and ``card`` on images written as PNG."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pdm_lightning.cli import main
from pdm_lightning.guard import Guard

Capture = pytest.CaptureFixture[str]
NETWORK = """
from pdm_lightning.models import Classifier, ResNet

def make():
    return Classifier(ResNet(8, 1, [4, 4, 8]), 8, 3, "reverse")

not_one = dict
"""
MODEL = (
    "--import",
    "guarded_network:make",
    "--weights",
    "model.safetensors",
    "--size",
    "8",
    "--channels",
    "1",
)


@pytest.fixture
def place(tmp_path: Path, folders: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's: code, weights and images; the command is typed in it."""
    (tmp_path / "guarded_network.py").write_text(NETWORK)
    shutil.copy(trained, tmp_path / "model.safetensors")
    (tmp_path / "images").symlink_to(folders)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("guarded_network", None)


@pytest.fixture
def fitted(place: Path, guard: Guard) -> Path:
    guard.save(place / "guard.safetensors")
    return place


def pdml(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pdm_lightning", *words],
        capture_output=True,
        text=True,
        env=environment,
        **more,
    )


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_from_images_to_scores(place: Path, stripes: Callable[..., Any]) -> None:
    """All of it through the real entry point, the scores those of the library."""
    done = pdml("fit", *MODEL, "images", "--fpr", "0.1")
    assert done.returncode == 0, done.stderr
    assert "False positives" in done.stdout
    assert "guard.safetensors: pdml detect guard.safetensors IMAGES... scores images with it" in done.stdout
    done = pdml("detect", "guard.safetensors", "images/a", "images/b/0001.png")
    assert done.returncode == 0, done.stderr
    found, guard = rows(done.stdout), Guard.load("guard.safetensors")
    paths = [*sorted(Path("images/a").iterdir()), Path("images/b/0001.png")]
    assert [row["file"] for row in found] == [str(path) for path in paths]
    scored = guard.score(paths)
    for row, *told in zip(found, scored.score, scored.p_value, scored.probability, strict=True):
        values = (row["score"], row["p_value"], row["probability"])
        assert [float(value) for value in values] == pytest.approx([float(v) for v in told], rel=1e-5)
    assert [row["flagged"] == "true" for row in found] == scored.flagged.tolist()
    assert [row["predicted"] for row in found] == [guard.classes[c] for c in scored.predicted.tolist()]
    flagged = int(scored.flagged.sum())
    assert f"{len(paths)} images, {flagged} flagged" in done.stderr
    done = pdml("card", "guard.safetensors", "--json")
    told = json.loads(done.stdout)
    assert told["provenance"]["data"] == "images"
    assert told["classifier"]["network"]["source"] == "resnet"
    assert told["provenance"]["alarms"]["value"] == 0.1
    assert any("attacker who knows" in limit for limit in told["limits"])


def test_images_without_folders(place: Path, write_images: Any, stripes: Any, capsys: Capture) -> None:
    images, _ = stripes(250)
    write_images(place / "flat", images, torch.zeros(250, dtype=torch.int64), [""])
    assert main(["fit", *MODEL, "flat", "--fpr", "0.1", "--classes", "x,y,z"]) == 0
    told = capsys.readouterr()
    assert "no class folders: the classifier's own predictions stand for the classes" in told.err
    guard = Guard.load("guard.safetensors")
    assert guard.provenance.labels == "predicted"
    assert guard.classes == ["x", "y", "z"]
    assert main(["card", "guard.safetensors"]) == 0
    assert "No labels were given" in " ".join(capsys.readouterr().out.split())


def test_a_model_of_the_store(tiny_study: Any, place: Path, write_images: Any, capsys: Capture) -> None:
    from pdm_lightning.data import digits
    from pdm_lightning.store import Store

    data = digits()
    write_images(place / "digits", *data.test, data.classes)
    key = next(found.key for found in Store(tiny_study.output / "store").list() if found.kind == "train")
    words = ["fit", f"train/{key[:8]}", "digits", "--store", str(tiny_study.output), "--detector", "msp"]
    assert main(words) == 0
    guard = Guard.load("guard.safetensors")
    assert guard.classes == data.classes
    assert guard.preprocessing.shape == (1, 16, 16)
    assert main([*words, "--size", "8"]) == 2
    assert "--size belongs to the trained model, which has its own: leave it out" in capsys.readouterr().err
    detector = next(
        found.key for found in Store(tiny_study.output / "store").list() if found.kind == "detector"
    )
    assert main(["fit", f"detector/{detector}", *words[2:]]) == 2
    assert "is no trained model: pdml store ls train lists them" in capsys.readouterr().err


def test_a_network_of_torchvision(place: Path, capsys: Capture) -> None:
    from safetensors.torch import save_file
    from torchvision.models import get_model

    torch.manual_seed(0)
    save_file(get_model("shufflenet_v2_x0_5", num_classes=3).state_dict(), "net.safetensors")
    words = [
        "fit",
        "--torchvision",
        "shufflenet_v2_x0_5",
        "images",
        "--size",
        "32",
        "--fpr",
        "0.1",
        "--detector",
        "msp",
    ]
    words += ["--embedding", "conv5"]
    assert main([*words, "--weights", "net.safetensors"]) == 0
    guard = Guard.load("guard.safetensors")
    assert guard.classes == ["a", "b", "c"]
    assert guard.classifier.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert guard.preprocessing.resize == "crop"
    assert main([*words, "--weights", "random", "--mean", "0.5", "--std", "0.5", "--resize", "stretch"]) == 0
    capsys.readouterr()
    torch.save({}, "net.pth")
    assert main([*words, "--weights", "net.pth"]) == 2
    assert "--weights net.pth: such a file is a pickle, which can run code" in capsys.readouterr().err
    words[2] = "shufflenet_v2_x1_0"
    assert main([*words, "--weights", "net.safetensors"]) == 2
    assert "--weights net.safetensors do not fit: size mismatch" in capsys.readouterr().err


def test_unreadable_images_are_named_and_left_out(fitted: Path, capsys: Capture) -> None:
    (fitted / "mixed").mkdir()
    shutil.copy("images/a/0000.png", "mixed/good.png")
    (fitted / "mixed" / "bad.png").write_bytes(b"rubbish")
    (fitted / "mixed" / "e\x1b[2J.png").write_bytes(b"rubbish")
    assert main(["detect", "guard.safetensors", "mixed", "absent.png"]) == 1
    told = capsys.readouterr()
    assert [row["file"] for row in rows(told.out)] == ["mixed/good.png"]
    assert "pdml: cannot read mixed/bad.png: no image of a known format" in told.err
    assert "pdml: cannot read absent.png: No such file or directory" in told.err
    assert "\x1b" not in told.err and "1 image, " in told.err and "3 unreadable" in told.err
    shutil.copytree("images/a", "more")
    (fitted / "more" / "bad.png").write_bytes(b"rubbish")
    words = [
        "fit",
        *MODEL[:-4],
        "--size",
        "8",
        "--channels",
        "1",
        "more",
        "--detector",
        "msp",
        "--fpr",
        "0.25",
    ]
    assert main(words) == 1
    assert "cannot read more/bad.png" in capsys.readouterr().err
    assert Guard.load("guard.safetensors").provenance.unreadable == 1


def test_flags_and_limits(fitted: Path, capsys: Capture) -> None:
    noise = torch.randint(0, 256, (8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save("noise.png")
    words = ["detect", "guard.safetensors", "noise.png"]
    assert main(words) == 0
    assert main([*words, "--fail-on-flag"]) == 3
    assert main([*words, "--fail-on-flag", "--threshold", "1e9"]) == 0
    assert main([*words, "--fail-on-flag", "--threshold", "-1e9"]) == 3
    assert main([*words, "absent.png", "--fail-on-flag", "--threshold", "1e9"]) == 1
    assert [row["flagged"] for row in rows(capsys.readouterr().out)][-1] == "false"
    assert main([*words, "--fpr", "0.2"]) == 0
    assert "of clean images about 20 % are" in capsys.readouterr().err
    assert main([*words, "--fpr", "0.01"]) == 2
    assert "needs 1000 clean validation images, there are 100" in capsys.readouterr().err
    assert main([*words, "--max-pixels", "63"]) == 1
    assert "8 x 8 pixels, 63 allowed" in capsys.readouterr().err


def test_json_lines_into_a_file(fitted: Path, capsys: Capture) -> None:
    assert (
        main(["detect", "guard.safetensors", "images/a/0*.png", "--format", "jsonl", "--output", "out.jsonl"])
        == 0
    )
    assert capsys.readouterr().out == ""
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    paths = [row["file"] for row in found]
    assert sorted(paths) == [str(path) for path in sorted(Path("images/a").glob("0*.png"))]
    scored = Guard.load("guard.safetensors").score(paths)
    assert [row["score"] for row in found] == pytest.approx(scored.score.tolist(), rel=1e-6)
    assert [row["flagged"] for row in found] == scored.flagged.tolist()
    assert not Path("out.jsonl.new").exists()


def test_a_list_is_scored_while_it_comes(fitted: Path) -> None:
    """The first line of the result is there before the list has ended: nothing waits for a million names."""
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-m", "pdm_lightning", "detect", "guard.safetensors", "-", "--batch", "1"]
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        for name in ("0000", "0003", "0006"):
            process.stdin.write(f"images/a/{name}.png\n")
        process.stdin.flush()
        head, first = process.stdout.readline(), process.stdout.readline()
        assert head == "file,predicted,probability,score,p_value,flagged\n"
        assert first.startswith("images/a/0000.png,")
        assert process.poll() is None
        rest, told = process.communicate("")
    assert [row.split(",")[0] for row in rest.splitlines()] == ["images/a/0003.png", "images/a/0006.png"]
    assert process.returncode == 0 and "3 images" in told


def test_names_that_are_no_utf8(fitted: Path) -> None:
    name = os.fsdecode(b"caf\xe9,\n.png")
    shutil.copy("images/a/0000.png", name)
    done = pdml("detect", "guard.safetensors", name, "--output", "out.csv")
    assert done.returncode == 0, done.stderr
    with open("out.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [name]


WRONG: list[tuple[str, str]] = [
    ("fit", "the following arguments are required"),
    ("fit images", "fit: a key of the store and a folder of images needed, got images"),
    ("fit 3f2a99 images", "outputs"),
    ("fit --torchvision resnet18 --timm x images", "not allowed with argument"),
    ("fit --torchvision resnett18 images --weights random", "lists no 'resnett18': did you mean 'resnet18'"),
    ("fit --import guarded_network images", "--import guarded_network: write package.module:function"),
    ("fit --import guarded_network:absent images", "has no attribute 'absent'"),
    ("fit --import absent_package:make images", "No module named 'absent_package'"),
    ("fit --import guarded_network:not_one images", "this makes a dict, and no torch.nn.Module"),
    ("fit MODEL images --embedding x", "--embedding belongs to the Classifier"),
    ("fit MODEL images --detector kdee", "invalid choice: 'kdee'"),
    ("fit MODEL images --fpr 0.9", "0.9: a number above 0 and at most 0.5 needed"),
    ("fit MODEL images --fpr 0.01", "293 clean images are too few for a false-positive rate of 0.01: 2000 needed"),
    ("fit MODEL images --classes a,b", "--classes: 2 names, the network has 3 outputs"),
    ("fit MODEL images --classes x,y,z", "folder 'a' is no class of the classifier (x, y, z)"),
    ("fit MODEL images --classes a", "two names at least"),
    ("fit MODEL images --device tpu", "--device 'tpu' is unknown"),
    ("fit MODEL images --size 0", "0: a whole number of at least 1 needed"),
    ("fit MODEL images/a/0000.png", "no folder 'images/a/0000.png'"),
    ("fit MODEL empty", "no images in 'empty'"),
    ("fit MODEL tree", "'tree' holds test: give one of them, as tree/test"),
    ("fit MODEL images --output absent/x", "there is no folder 'absent'"),
    ("fit MODEL images --output images", "--output images is a folder"),
    ("fit MODEL images --weights absent", "--weights absent: no such file"),
    ("fit MODEL images --weights guarded_network.py", "is no safetensors file"),
    ("detect guard.safetensors", "the following arguments are required: IMAGES"),
    ("detect absent images", "absent: No such file or directory"),
    ("detect guarded_network.py images", "guarded_network.py: this is no safetensors file"),
    ("detect guard.safetensors empty", "no images in empty"),
    ("detect guard.safetensors images --output guard.safetensors", "is the guard itself: name another file"),
    ("detect guard.safetensors images --output x.png", "would be an image"),
    ("detect guard.safetensors images --threshold nan", "nan: a finite number needed"),
    ("detect guard.safetensors images --fpr 0.1 --threshold 1", "not allowed with argument"),
    ("detect guard.safetensors images --batch 0", "0: a whole number of at least 1 needed"),
    ("card", "the following arguments are required: FILE"),
    ("card model.safetensors", "this is no guard"),
    ("fti", "unknown command 'fti': did you mean 'fit'?"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "told"), WRONG, ids=[words for words, _ in WRONG])
def test_wrong_words(words: str, told: str, fitted: Path, capsys: Capture) -> None:
    (fitted / "empty").mkdir()
    (fitted / "tree" / "test" / "a").mkdir(parents=True)
    shutil.copy("images/a/0000.png", "tree/test/a/x.png")
    typed = [part for word in words.split() for part in (MODEL if word == "MODEL" else (word,))]
    before = sorted(path.name for path in fitted.iterdir())
    assert main(typed) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("pdml: ") and told in error
    left = {"__pycache__", "x.csv.new"}
    assert sorted({path.name for path in fitted.iterdir()} - left) == sorted(set(before) - left)


@pytest.mark.parametrize("command", ["fit", "detect", "card"])
def test_help(command: str, capsys: Capture) -> None:
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: pdml {command} ")
    assert f"  pdml {command} " in told.partition("examples")[2]
