"""``pdml fit``, ``detect`` and ``card`` on images written as PNG."""

from __future__ import annotations

import csv
import importlib.util
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


def test_from_images_to_scores(model: tuple[str, ...], place: Path, stripes: Callable[..., Any]) -> None:
    """All of it through the real entry point, the scores those of the library."""
    done = pdml("fit", *model, "images", "--fpr", "0.1")
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


def test_images_without_folders(
    model: tuple[str, ...], place: Path, write_images: Any, stripes: Any, capsys: Capture
) -> None:
    images, _ = stripes(250)
    write_images(place / "flat", images, torch.zeros(250, dtype=torch.int64), [""])
    assert main(["fit", *model, "flat", "--fpr", "0.1", "--classes", "x,y,z"]) == 0
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


@pytest.mark.parametrize("prefix", ["", "module.", "model.net."])
def test_checkpoints_are_read_as_run_reads_them(prefix: str, place: Path) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    network = get_model("shufflenet_v2_x0_5", num_classes=3)
    held = {prefix + name: value for name, value in network.state_dict().items()}
    torch.save({"state_dict": held, "epoch": 3}, "net.pt")
    (place / "shuffled.py").write_text(
        "from torchvision.models import get_model\ndef make(): return get_model('shufflenet_v2_x0_5', num_classes=3)\n"
    )
    words = ["fit", "images", "--size", "32", "--fpr", "0.1", "--detector", "msp", "--weights", "net.pt"]
    for asked in (["--torchvision", "shufflenet_v2_x0_5"], ["--import", "shuffled.make"]):
        assert main([*words, *asked, "--mean", "0.5"]) == 0
        found = Guard.load("guard.safetensors").classifier.state_dict()
        assert all(torch.equal(found[f"module.{n}"], value) for n, value in network.state_dict().items())


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
    assert "--weights net.pth holds no table of weights" in capsys.readouterr().err
    words[2] = "shufflenet_v2_x1_0"
    assert main([*words, "--weights", "net.safetensors"]) == 2
    assert "--weights net.safetensors do not fit the network: " in capsys.readouterr().err


def test_unreadable_images_are_named_and_left_out(
    model: tuple[str, ...], fitted: Path, capsys: Capture
) -> None:
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
    words = ["fit", *model, "more", "--detector", "msp", "--fpr", "0.25"]
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
        process.stdin.close()
        # not communicate(): it would miss what readline has read ahead
        rest, told = process.stdout.read(), process.stderr.read()
    assert [row.split(",")[0] for row in rest.splitlines()] == ["images/a/0003.png", "images/a/0006.png"]
    assert process.returncode == 0 and "3 images" in told


def test_names_that_are_no_utf8(fitted: Path) -> None:
    name = os.fsdecode(b'caf\xe9,\n".png')
    shutil.copy("images/a/0000.png", name)
    done = pdml("detect", "guard.safetensors", name, "--output", "out.csv")
    assert done.returncode == 0, done.stderr
    with open("out.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [name]


@pytest.mark.parametrize("command", ["fit", "detect", "card", "export"])
def test_help(command: str, capsys: Capture) -> None:
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: pdml {command} ")
    assert f"  pdml {command} " in told.partition("examples")[2]


def test_exported_graphs_say_what_the_guard_says(
    model: tuple[str, ...], place: Path, stripes: Callable[..., Any], capsys: Capture
) -> None:
    assert main(["fit", *model, "images", "--fpr", "0.1"]) == 0
    words = ["--program", "watched.pt2"]
    words += ["--onnx", "watched.onnx"] if importlib.util.find_spec("onnxruntime") else []
    capsys.readouterr()
    assert main(["export", "guard.safetensors", *words]) == 0
    assert "watched.pt2: images (N, " in capsys.readouterr().out
    guard = Guard.load("guard.safetensors")
    images = torch.rand(7, *guard.preprocessing.shape, generator=torch.Generator().manual_seed(0))
    scored = guard.score(images)
    answers = [torch.export.load("watched.pt2").module()(images)]
    if "--onnx" in words:
        from onnxruntime import InferenceSession

        answers.append(
            [
                torch.from_numpy(a)
                for a in InferenceSession("watched.onnx").run(None, {"images": images.numpy()})
            ]
        )
    for logits, _, score, flag in answers:
        assert logits.argmax(dim=1).tolist() == scored.predicted.tolist()
        assert score.tolist() == pytest.approx(scored.score.tolist(), rel=1e-4, abs=1e-4)
        assert flag.tolist() == scored.flagged.tolist()
