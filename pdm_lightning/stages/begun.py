"""How far the training in a folder is, and the batches that it is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pdm_lightning.data.module import PDMDataModule
from pdm_lightning.stages.build import build_loss
from pdm_lightning.stages.folder import check_same, finished, identity

if TYPE_CHECKING:
    from pdm_lightning.data import ImageData

CHECKPOINT = Path("checkpoint", "last.ckpt")
"""In the folder of a training: what it goes on from."""


@dataclass(frozen=True)
class Begun:
    """A training in a folder, and how far it is.

    Attributes
    ----------
    spec
        As given to :func:`pdm_lightning.stages.train.fit`.
    folder
        Of the training.
    saved
        What :class:`pdm_lightning.stages.train.Segments` added to the checkpoint; nothing where there is none.
    steps
        Of the whole training.
    batch_size
        Anchors a step, of all devices together.
    result
        What train.json holds, where the training is finished.
    """

    spec: Mapping[str, Any]
    folder: Path
    saved: Mapping[str, Any]
    steps: int
    batch_size: int
    result: dict[str, Any] | None

    @property
    def checkpoint(self) -> Path:
        """File that the training goes on from."""
        return self.folder / CHECKPOINT

    @property
    def done(self) -> int:
        """Steps that an earlier call has done."""
        return int(self.saved.get("step", 0))


def begin(dataset: ImageData, spec: Mapping[str, Any], folder: Path) -> Begun:
    """Look how far a training is; parameters and errors are those of :func:`pdm_lightning.stages.train.fit`."""
    folder.mkdir(parents=True, exist_ok=True)
    own = identity(spec)
    result = finished(folder, own)
    saved = {} if result is not None else _saved(folder / CHECKPOINT, own)
    data = batches(dataset, spec, saved.get("segment"))
    return Begun(spec, folder, saved, data.total_steps, data.batch_size, result)


def batches(dataset: ImageData, spec: Mapping[str, Any], segment: int | None = None) -> PDMDataModule:
    """The batches of a training, in segments of so many steps, or of as many as its spec says.

    Raises
    ------
    ValueError
        If the spec asks for pairs in an unknown way, or for no number of steps.
    """
    train, defense = spec["train"], spec["defense"]
    wanted = defense.get("pairs", "auto")
    if wanted not in ("auto", "always"):
        raise ValueError(f"defense.pairs {wanted!r} is unknown: choose auto or always")
    batch_size = min(int(train.get("batch_size", 128)), len(dataset.train[1]))
    steps = train.get("steps")
    if steps is None:
        if train.get("epochs") is None:
            raise ValueError(
                "neither steps nor epochs of the training are given: set train.steps or train.epochs"
            )
        steps = max(1, round(float(train["epochs"]) * (len(dataset.train[1]) // batch_size)))
    return PDMDataModule(
        dataset,
        batch_size,
        pairs=wanted == "always" or build_loss(defense).needs_pairs,
        q=float(defense.get("q", 0.5)),
        seed=int(spec["seed"]),
        segment=segment or int(train.get("segment", 100)),
        total_steps=int(steps),
        augment=spec.get("augment"),
    )


def _saved(checkpoint: Path, own: dict[str, Any]) -> dict[str, Any]:
    """Read what the training added to a checkpoint; nothing where there is none."""
    if not checkpoint.exists():
        return {}
    saved: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)["pdm_fit"]
    check_same(json.loads(saved["spec"]), own, checkpoint.parent.parent)
    return saved
