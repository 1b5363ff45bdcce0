"""``pdml fit``, ``detect`` and ``card``: each wrong word gets one line, before anything is computed or written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pdm_lightning.cli import main

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
    ("fit MODEL images --validation images", "--validation images and images share 293 images: take them apart"),
    ("fit MODEL images --validation images/a --unlabelled", "share 98 images"),
    ("fit MODEL images --name " + 201 * "n", "--name: at most 200 printable characters needed"),
    ("fit MODEL empty", "no images in 'empty'"),
    ("fit MODEL tree", "'tree' holds test: give one of them, as tree/test"),
    ("fit MODEL images --output absent/x", "there is no folder 'absent'"),
    ("fit MODEL images --output images", "--output images is a folder"),
    ("fit MODEL images --weights absent", "--weights absent: no such file"),
    ("fit MODEL images --weights guarded_network.py", "--weights guarded_network.py holds other things than weights"),
    ("detect guard.safetensors", "the following arguments are required: IMAGES"),
    ("detect absent images", "absent: No such file or directory"),
    ("detect guarded_network.py images", "guarded_network.py: this is no safetensors file"),
    ("detect guard.safetensors empty", "no images in empty"),
    ("detect guard.safetensors images --output guard.safetensors", "would overwrite guard.safetensors, which is read"),
    ("detect link.csv images --output guard.safetensors", "would overwrite link.csv, which is read"),
    ("detect guard.safetensors images --output link.csv", "would overwrite guard.safetensors, which is read"),
    ("detect guard.safetensors kept.csv.new --output kept.csv", "would overwrite kept.csv.new, which is read"),
    ("detect guard.safetensors images --output pipe", "--output pipe is no regular file: name another"),
    ("fit MODEL images --output model.safetensors", "would overwrite model.safetensors, which is read"),
    ("fit MODEL images --output images/a/0000.png", "would be an image"),
    ("fit MODEL images --output /dev/null", "--output /dev/null is no regular file: name another"),
    ("export link.csv --program pipe", "--program pipe is no regular file: name another"),
    ("export watched.pt2 --program watched.pt2", "would overwrite watched.pt2, which is read"),
    ("detect guard.safetensors images --output x.png", "would be an image"),
    ("detect guard.safetensors images --threshold nan", "nan: a finite number needed"),
    ("detect guard.safetensors images --fpr 0.1 --threshold 1", "not allowed with argument"),
    ("detect guard.safetensors images --batch 0", "0: a whole number of at least 1 needed"),
    ("card", "the following arguments are required: FILE"),
    ("export guard.safetensors", "nothing to write: name a file, as --onnx watched.onnx"),
    ("export guard.safetensors --program x.onnx", "must end in .pt2"),
    ("export model.safetensors --program x.pt2", "this is no guard"),
    ("card model.safetensors", "this is no guard"),
    ("fti", "unknown command 'fti': did you mean 'fit'?"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "told"), WRONG, ids=[words for words, _ in WRONG])
def test_wrong_words(
    words: str, told: str, model: tuple[str, ...], fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fitted / "empty").mkdir()
    (fitted / "tree" / "test" / "a").mkdir(parents=True)
    shutil.copy("images/a/0000.png", "tree/test/a/x.png")
    Path("link.csv").symlink_to("guard.safetensors")
    for name in ("kept.csv.new", "watched.pt2"):
        shutil.copy("guard.safetensors", name)
    os.mkfifo("pipe")
    typed = [part for word in words.split() for part in (model if word == "MODEL" else (word,))]
    before = {path.name: path.lstat().st_ino for path in fitted.iterdir()}
    assert main(typed) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("pdml: ") and told in error
    left = {"__pycache__", "x.csv.new"}
    after = {path.name: path.lstat().st_ino for path in fitted.iterdir() if path.name not in left}
    assert after == {name: number for name, number in before.items() if name not in left}
