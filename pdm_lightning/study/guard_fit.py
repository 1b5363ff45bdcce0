"""``pdml fit``: a model and clean images become one file."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pdm_lightning.devices import pick_device
from pdm_lightning.guard import Guard, Limits, Preprocessing
from pdm_lightning.guard.checks import text
from pdm_lightning.guard.source import FileSource
from pdm_lightning.guard.walk import walk
from pdm_lightning.spoken import several
from pdm_lightning.study.guard_card import show
from pdm_lightning.study.guard_models import Model, open_model
from pdm_lightning.study.guard_output import writable
from pdm_lightning.study.guard_words import parse


@dataclass(frozen=True)
class Folder:
    """Images of a folder: paths, and for each the name of its class folder where there are any."""

    paths: list[str]
    groups: list[str] | None

    @property
    def classes(self) -> list[str] | None:
        """Names of the class folders, in numeric order where all are whole numbers, else in alphabetic order."""
        if self.groups is None:
            return None
        found = set(self.groups)
        numeric = all(name.isdecimal() for name in found)
        return sorted(found, key=lambda name: (int(name) if numeric else 0, name))


def fit(words: Sequence[str]) -> int:
    """Carry out ``pdml fit``; return the exit status: 1 where images could not be read.

    Raises
    ------
    ValueError
        In one line, for what cannot be met.
    """
    given = parse("fit", words)
    if given is None:
        return 0
    key, place = _places(given)
    inputs = (given.weights, place, given.validation, given.classes)
    output = writable("--output", given.output, [Path(word) for word in inputs if word])
    device = device_of(given)
    name = text()(given.name or _printable(place.absolute().name), "--name")
    images = folder(place, given.unlabelled)
    names = class_names(given.classes)
    model = open_model(given, key, names, len(images.classes) if images.classes else None)
    classes = model.classes or (images.classes if _as_many(images, model) else None)
    preprocessing = Preprocessing(*model.size, model.channels, model.resize)
    limits = Limits(pixels=given.max_pixels)

    def source(found: Folder) -> FileSource:
        return FileSource(found.paths, preprocessing, _labels(found, classes, model), limits)

    sources = [source(images)]
    if given.validation:
        others = folder(Path(given.validation), given.unlabelled or images.groups is None)
        if both := {*map(os.path.realpath, images.paths)} & {*map(os.path.realpath, others.paths)}:
            raise ValueError(
                f"--validation {given.validation} and {place} share {several(len(both), 'image')}: take them apart"
            )
        sources.append(source(others))
    if images.groups is None:
        print("no class folders: the classifier's own predictions stand for the classes", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        guard = Guard.fit(
            model.classifier,
            *sources,
            detector=given.detector,
            fpr=given.fpr,
            classes=classes,
            preprocessing=preprocessing,
            architecture=model.architecture,
            name=name,
            seed=given.seed,
            batch=given.batch,
            device=device,
            progress=True,
        )
    guard.save(output)
    failed = dict(pair for source in sources for pair in source.failed)
    for path, why in failed.items():
        unreadable(path, why)
    show(output)
    print(f"\n{output}: pdml detect {output} IMAGES... scores images with it")
    return int(bool(failed))


def _places(given: argparse.Namespace) -> tuple[str, Path]:
    """Key of the store, or an empty one, and the folder of images."""
    named = given.torchvision or given.timm or given.imported
    wanted = 1 if named else 2
    if len(given.words) != wanted:
        what = "one folder of images" if named else "a key of the store and a folder of images"
        raise ValueError(f"fit: {what} needed, got {' '.join(given.words)}; pdml fit --help explains")
    return ("" if named else given.words[0]), Path(given.words[-1])


def folder(place: Path, unlabelled: bool = False) -> Folder:
    """List the clean images of a folder: one a class below it, or images without any order.

    Raises
    ------
    FileNotFoundError, ValueError
        For no folder, no images, or images both in class folders and beside them.
    """
    if not place.is_dir():
        raise FileNotFoundError(f"no folder '{place}': give the folder of clean images")
    paths = list(walk(place))
    if not paths:
        raise FileNotFoundError(f"no images in '{place}'")
    if unlabelled:
        return Folder(paths, None)
    groups = [os.path.relpath(path, place).split(os.sep) for path in paths]
    beside = sum(len(parts) == 1 for parts in groups)
    if beside == len(paths):
        return Folder(paths, None)
    if beside:
        raise ValueError(
            f"'{place}' has {several(beside, 'image')} beside its folders: move them, or --unlabelled"
        )
    found = {parts[0] for parts in groups}
    if found <= {"train", "test", "val", "validation"}:
        raise ValueError(
            f"'{place}' holds {' and '.join(sorted(found))}: give one of them, as {place / 'test'}"
        )
    return Folder(paths, [parts[0] for parts in groups])


def class_names(text: str | None) -> list[str] | None:
    """Read ``a,b,c``, or a text file of one name a line."""
    if text is None:
        return None
    if Path(text).is_file():
        names = Path(text).read_text(encoding="utf-8").splitlines()
    else:
        names = text.split(",")
    names = [name.strip() for name in names if name.strip()]
    if len(names) < 2:
        raise ValueError(f"--classes {text}: two names at least, as cat,dog or a file of one a line")
    return names


def _as_many(images: Folder, model: Model) -> bool:
    return images.classes is not None and len(images.classes) == model.classifier.num_classes


def _labels(found: Folder, classes: Sequence[str] | None, model: Model) -> list[int] | None:
    """Number of each image's class; folders are matched with classes by name."""
    if found.groups is None:
        return None
    if classes is None:
        count = model.classifier.num_classes
        raise ValueError(
            f"{len(found.classes or ())} class folders, the classifier has {count} classes: name them with --classes, "
            "or pass over the folders with --unlabelled"
        )
    index = {name: number for number, name in enumerate(classes)}
    unknown = sorted(set(found.groups) - index.keys())
    if unknown or len(index) < len(classes):
        what = f"folder '{unknown[0]}' is no class" if unknown else "some classes have one name"
        some = f"{', '.join(list(classes)[:8])}{', ...' if len(classes) > 8 else ''}"
        raise ValueError(f"{what} of the classifier ({some}): rename, or --unlabelled")
    return [index[name] for name in found.groups]


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:200]


def device_of(given: argparse.Namespace) -> str:
    """Check ``--device``."""
    try:
        return str(pick_device(given.device))
    except ValueError as error:
        raise ValueError(str(error).replace("trainer.device=", "--device ")) from None


def unreadable(path: str, why: str, what: str = "read") -> None:
    """Tell of an image that could not be read, or else; a name may have control characters."""
    name = path if path.isprintable() else repr(path)
    print(f"pdml: cannot {what} {name}: {why}", file=sys.stderr, flush=True)
