"""How this machine runs gradient passes fastest: measured once for each model and shape of images, then kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks import Setup, fastest, prepare
from attacks.engine import setups
from pdm_lightning.devices import describe, strict_float32
from pdm_lightning.models import Classifier
from pdm_lightning.stages.context import write_json

FOLDER = "passes"
"""The folder beside the store that keeps what was measured."""


@dataclass(frozen=True)
class Engine:
    """How the gradient passes of a crafting are run.

    Attributes
    ----------
    setup : attacks.Setup
    seconds : float
        Of a pass of one image, where it was measured; 0 where there was no choice to make.
    machine : str
        On which it was measured.
    slack : float
        By how much a margin on the prepared copy may be off.
    """

    setup: Setup
    seconds: float
    machine: str
    slack: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return {
            "setup": self.setup.as_dict(),
            "seconds_per_pass": self.seconds,
            "machine": self.machine,
            "slack": self.slack,
        }

    def suits(self, craft: Mapping[str, Any], device: torch.device) -> bool:
        """Whether it is what the settings ask for, and the device can do it."""
        setup, asked = self.setup, craft["micro_batch"]
        folded = craft["fold"] or not setup.fold
        return (
            folded and asked in (None, setup.micro_batch) and (device.type == "cuda" or not setup.cuda_graph)
        )


def choose(
    folder: Path,
    classifier: Classifier,
    model: Mapping[str, Any],
    example: Tensor,
    craft: Mapping[str, Any],
    *,
    graphs: bool = True,
) -> Engine:
    """The setup that was saved for this machine, model, shape and settings; else the fastest, measured now and saved.

    Parameters
    ----------
    folder : Path
        Of the study's output; what is measured lies in its folder ``passes``.
    classifier : Classifier
        On its device; its weights do not matter.
    model : mapping
        What it was built from.
    example : Tensor
        (n, C, H, W) images, as many as an attack will have in hand.
    craft : mapping
        Has ``fold`` and ``micro_batch`` (None: measured).
    graphs : bool
        Whether CUDA graphs are an option.
    """
    candidates = _candidates(example, craft["fold"], craft["micro_batch"], graphs)
    machine = describe(example.device)
    if len(candidates) == 1:
        return Engine(candidates[0], 0.0, machine)
    what, name = _question(classifier.num_classes, model, example, candidates)
    found = _read(folder / FOLDER / name)
    if found is None:
        with strict_float32():
            setup, seconds = fastest(classifier, example, candidates, keep=classifier.tapped)
        found = Engine(setup, seconds, machine)
        write(folder / FOLDER / name, what | found.as_dict())
    return found


def known(
    folder: Path,
    classes: int,
    model: Mapping[str, Any],
    example: Tensor,
    craft: Mapping[str, Any],
    *,
    graphs: bool = True,
) -> Engine | None:
    """What `choose` has measured and kept for a model of so many classes; None where it has not, or had no choice."""
    candidates = _candidates(example, craft["fold"], craft["micro_batch"], graphs)
    found = _read(folder / FOLDER / _question(classes, model, example, candidates)[1])
    return found if found is not None and found.seconds else None


def _question(
    classes: int, model: Mapping[str, Any], example: Tensor, candidates: list[Setup]
) -> tuple[dict[str, Any], str]:
    """What is measured, and the name of the file that keeps the answer."""
    what = {
        "machine": describe(example.device),
        "model": {"settings": dict(model), "classes": classes},
        "images": list(example.shape),
        "candidates": [setup.as_dict() for setup in candidates],
    }
    key = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return what, f"{key}.json"


def check(engine: Engine, classifier: Classifier, example: Tensor) -> Engine:
    """The engine as it fits a trained classifier: not folded where that would change its logits, with its slack."""
    if not engine.setup.fold:
        return engine
    plain = replace(engine.setup, cuda_graph=False)
    ready = prepare(classifier, example, plain, keep=classifier.tapped)
    setup = engine.setup if ready.setup.fold else ready.setup
    return replace(engine, setup=setup, slack=ready.slack)


def resume(folder: Path) -> Engine | None:
    """The engine that a crafting in this folder was begun with; None where none was."""
    return _read(folder / "engine.json")


def begin(folder: Path, engine: Engine) -> None:
    """Note the engine in the folder of a crafting, for whoever resumes it."""
    write(folder / "engine.json", engine.as_dict())


def _candidates(example: Tensor, fold: bool, micro_batch: int | None, graphs: bool) -> list[Setup]:
    if not fold:  # the exact path: the classifier itself
        return [Setup(fold=False, micro_batch=micro_batch)]
    found = setups(example)
    if not graphs:
        found = [setup for setup in found if not setup.cuda_graph]
    if micro_batch is not None:
        found = list(dict.fromkeys(replace(setup, micro_batch=micro_batch) for setup in found))
    return found


def _read(path: Path) -> Engine | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        setup = Setup(**content["setup"])
        seconds, slack = float(content["seconds_per_pass"]), float(content["slack"])
        return Engine(setup, seconds, str(content["machine"]), slack)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: measured anew
        return None


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file at once and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    write_json(scratch, content)
    scratch.replace(path)
