"""Train a classifier in a folder, going on where an interrupted call stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from pdm_lightning.data.base import to_unit
from pdm_lightning.devices import pick_device
from pdm_lightning.durable import sync, write_text
from pdm_lightning.lit import PDMModule
from pdm_lightning.models import Classifier
from pdm_lightning.norm import join_norms
from pdm_lightning.pace import USUAL, Pace, arrange, running
from pdm_lightning.progress import Progress
from pdm_lightning.replicas import ALONE, Replica
from pdm_lightning.seeding import derive
from pdm_lightning.stages.begun import Begun, batches, begin
from pdm_lightning.stages.build import build_classifier, build_loss, load_classifier
from pdm_lightning.stages.folder import history_csv, identity, publish
from pdm_lightning.stages.start import publish_as_is, start
from pdm_lightning.stages.trainer import calm, make_trainer, run_trainer

if TYPE_CHECKING:
    from pdm_lightning.data import ImageData

__all__ = ["fit", "load_classifier"]

Show = Callable[..., object]
#: Sees the rows of a training's log so far.
Watch = Callable[[Sequence[Mapping[str, float]]], None]


def fit(
    dataset: ImageData,
    spec: Mapping[str, Any],
    folder: Path,
    *,
    device: str = "auto",
    loggers: Sequence[Any] = (),
    progress: bool = True,
    teacher: Classifier | None = None,
    watch: Watch | None = None,
    pace: Pace = USUAL,
) -> dict[str, Any]:
    """Train a classifier on a data set and write it into a folder.

    A Lightning epoch is a segment of ``train.segment`` steps, after which the training validates, and saves
    ``checkpoint/last.ckpt``. Killed at any point and called again, it goes on from there; on the CPU the
    final weights are exactly those of an undisturbed run. A finished folder is left as it is.

    Parameters
    ----------
    dataset
        Train and validation splits are used; the test split is not.
    spec
        ``model``, ``defense`` and ``optimizer`` as in ``conf/`` (of the terms, those in ``defense.use``),
        ``seed``, ``augment`` (None: none), ``precision`` (default float32), and
        ``train``: ``steps`` or, where None, ``epochs``; ``batch_size``; ``segment``; ``log_every`` (steps of a row of
        log.csv, default 20). ``start``: where the weights are that ``model.weights`` tells of, see
        :func:`pdm_lightning.stages.start.start`. A defence that uses no term takes no step: the classifier is published
        as it is.
    folder
        Receives ``model.safetensors``, ``train.json`` and ``log.csv``.
    device
        "auto", "cpu", "cuda" or "cuda:1".
    loggers
        Lightning loggers that get every row.
    progress
        Whether to show how far it is.
    teacher
        Classifier that is distilled, for a defence with :class:`pdm_lightning.losses.Distillation`; it stays as it
        is. The spec has to tell one teacher from another: a training resumed with another one is not noticed.
    watch
        Sees all rows of the log after each segment but the last, when the checkpoint is saved; what it raises ends the
        call.
    pace
        How it is run; a resume has to keep to it for exactly the same weights.

    Returns
    -------
    dict
        What train.json holds: steps, epochs, images_seen, seconds, devices, batch_size (of all devices together),
        batch_size_per_device, lr, val_accuracy, terms, collapsed, collapse, parameters, history (the rows of
        validation) and spec. Means over the validation split: val_accuracy
        of its images, terms of it (on pairs, where the training has pairs).

    Raises
    ------
    ValueError
        If the spec is wrong, or the folder holds a training of another spec.
    pdm_lightning.lit.TrainingDiverged
        If a loss or a weight became NaN or infinite.
    """
    if not spec["defense"]["use"]:
        return publish_as_is(dataset, spec, folder, pick_device(device))
    begun = begin(dataset, spec, folder)
    if begun.result is not None:
        return begun.result
    with Progress(begun.steps, what(teacher), enabled=progress, done=begun.done) as bar:
        result = proceed(
            dataset, begun, [pick_device(device)], ALONE, loggers, bar.update, teacher, watch, pace
        )
    assert result is not None
    return result


def what(teacher: object) -> str:
    """How a training is called, with a teacher or without one."""
    return "train" if teacher is None else "distil"


def proceed(
    dataset: ImageData,
    begun: Begun,
    places: Sequence[torch.device],
    replica: Replica,
    loggers: Sequence[Any],
    show: Show,
    teacher: Classifier | None,
    watch: Watch | None = None,
    pace: Pace = USUAL,
) -> dict[str, Any] | None:
    """Train from where it stands, alone or as one of several processes that have met before.

    Parameters
    ----------
    begun
        Not yet finished.
    places
        The device, or those of all processes, by their rank.
    replica
        Which of them this process is.
    show
        Takes the number of steps that were done and, by name, what else there is to show.
    teacher, watch, pace
        See `fit`.

    Returns
    -------
    dict or None
        As :func:`fit`; None in all processes but the first, which has written it.
    """
    where, spec = places[replica.rank], begun.spec
    precision = str(spec.get("precision", "float32"))
    data = batches(dataset, spec, begun.saved.get("segment"))
    with calm(), torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(derive(spec["seed"], "init"))
        classifier = build_classifier(spec, dataset.num_classes, dataset.shape[0])
        if not begun.saved:
            start(classifier, spec, dataset.shape)
        if replica.count > 1:
            join_norms(classifier, where)
        module = _module(classifier, spec, data.total_steps, teacher, replica)
        example = to_unit(dataset.train[0][:2]).to(where)
        looked_into = bool(module.loss.taps or module.loss.places)
        arrange(classifier.to(where), example, pace, precision, looked_into=looked_into)
        segments = Segments(begun, data.segment, show, first=replica.rank == 0, watch=watch)
        trainer = make_trainer(places, replica, data.segments, begun.folder, loggers, segments)
        with running(precision, where):
            run_trainer(trainer, module, data, begun.checkpoint if begun.saved else None)
    if replica.count > 1:
        dist.destroy_process_group()
    if replica.rank:
        return None
    facts = {
        "steps": data.total_steps,
        "epochs": data.total_steps / data.steps_per_epoch,
        "images_seen": module.images_seen,
        "seconds": segments.seconds(),
        "devices": replica.count,
        "batch_size": data.batch_size,
        "batch_size_per_device": data.batch_size // replica.count,
        "lr": spec["optimizer"].get("lr"),
        "spec": identity(spec),
    }
    return publish(begun.folder, classifier.to(where), dataset.validation, module.history, facts)


class Segments(pl.Callback):
    """Save a checkpoint and the log after each segment, and show the progress.

    Parameters
    ----------
    begun
        The training; its checkpoint is replaced after each segment.
    segment
        Steps of a segment, saved with it: a resume has to keep to it.
    show
        Takes the number of steps that were done and, by name, what else there is to show.
    first
        Whether this process writes the files: of several, the first alone does.
    watch
        See `fit`.
    """

    def __init__(
        self, begun: Begun, segment: int, show: Show, *, first: bool = True, watch: Watch | None = None
    ) -> None:
        self.begun, self.segment, self.show, self.first, self.watch = begun, segment, show, first, watch
        self._before, self._start = float(begun.saved.get("seconds", 0.0)), time.monotonic()

    def seconds(self) -> float:
        """Seconds of training, of earlier calls too."""
        return self._before + time.monotonic() - self._start

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step."""
        self.show(1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, after the validation of the segment."""
        assert isinstance(pl_module, PDMModule)
        pl_module.flush()
        self._show(pl_module.history[-1])
        checkpoint = self.begun.checkpoint
        checkpoint.parent.mkdir(exist_ok=True)
        fresh = checkpoint.with_suffix(".tmp")
        trainer.save_checkpoint(fresh)  # the first of several processes writes, the others wait for it
        if not self.first:
            return
        # Lightning's own save goes through the temporary directory, which may lie on another disk
        sync(fresh)
        os.replace(fresh, checkpoint)
        write_text(self.begun.folder / "log.csv", history_csv(pl_module.history))
        if self.watch is not None and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self.watch(pl_module.history)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add what :func:`fit` needs to go on."""
        spec = json.dumps(identity(self.begun.spec))
        own = {"spec": spec, "segment": self.segment, "seconds": self.seconds()}
        checkpoint["pdm_fit"] = own | {"step": int(pl_module.history[-1]["step"])}

    def _show(self, row: Mapping[str, float]) -> None:
        shown = {key.removeprefix("val/"): row[key] for key in ("val/loss", "val/accuracy") if key in row}
        self.show(0, **shown)


def _module(
    classifier: Classifier,
    spec: Mapping[str, Any],
    total_steps: int,
    teacher: Classifier | None,
    replica: Replica,
) -> PDMModule:
    return PDMModule(
        classifier,
        build_loss(spec["defense"]),
        spec["optimizer"],
        total_steps,
        forward=spec["defense"].get("forward", "concatenated"),
        seed=int(spec["seed"]),
        log_every=int(spec["train"].get("log_every", 20)),
        teacher=teacher,
        replica=replica,
        precision=str(spec.get("precision", "float32")),
    )
