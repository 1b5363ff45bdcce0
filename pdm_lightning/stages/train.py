"""Train a classifier in a folder, going on where an interrupted call stopped."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment

from pdm_lightning.data.module import PDMDataModule
from pdm_lightning.devices import pick_device
from pdm_lightning.lit import PDMModule
from pdm_lightning.manifest import sync
from pdm_lightning.models import Classifier
from pdm_lightning.progress import Progress
from pdm_lightning.seeding import derive
from pdm_lightning.stages.build import build_classifier, build_loss, load_classifier
from pdm_lightning.stages.folder import check_same, finished, history_csv, identity, publish, write_text

if TYPE_CHECKING:
    from pdm_lightning.data import ImageData

__all__ = ["fit", "load_classifier"]

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
        ``seed``, ``augment`` (None: none), and ``train``: ``steps`` or, where None, ``epochs``;
        ``batch_size``; ``segment``; ``log_every`` (steps of a row of log.csv, default 20).
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

    Returns
    -------
    dict
        What train.json holds: steps, epochs, images_seen, seconds, val_accuracy, terms, collapsed, collapse,
        parameters, history (the rows of validation) and spec. Means over the validation split: val_accuracy
        of its images, terms of it (on pairs, where the training has pairs).

    Raises
    ------
    ValueError
        If the spec is wrong, or the folder holds a training of another spec.
    pdm_lightning.lit.TrainingDiverged
        If a loss or a weight became NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = identity(spec)
    done = finished(folder, own)
    if done is not None:
        return done
    checkpoint = folder / "checkpoint" / "last.ckpt"
    saved = _saved(checkpoint, own)
    data = _data_module(dataset, spec, saved.get("segment"))
    where = pick_device(device)
    with _calm(), torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(derive(spec["seed"], "init"))
        classifier = build_classifier(spec, dataset.num_classes, dataset.shape[0])
        module = _module(classifier, spec, data.total_steps, teacher)
        what = "train" if teacher is None else "distil"
        with Progress(data.total_steps, what, enabled=progress, done=saved.get("step", 0)) as bar:
            segments = Segments(checkpoint, own, data.segment, saved.get("seconds", 0.0), bar, watch)
            trainer = _trainer(where, data.segments, folder, loggers, segments)
            _run(trainer, module, data, checkpoint if saved else None)
    classifier.to(where)
    facts = {
        "steps": data.total_steps,
        "epochs": data.total_steps / data.steps_per_epoch,
        "images_seen": module.images_seen,
        "seconds": segments.seconds(),
        "spec": own,
    }
    return publish(folder, classifier, dataset.validation, module.history, facts)


class Segments(pl.Callback):
    """Save a checkpoint and the log after each segment, and show the progress.

    Parameters
    ----------
    checkpoint
        File to replace after each segment.
    spec
        Identity of the training, saved with it.
    segment
        Steps of a segment, saved with it: a resume has to keep to it.
    seconds
        Time that earlier calls took.
    bar
        Counts the steps.
    watch
        See `fit`.
    """

    def __init__(
        self,
        checkpoint: Path,
        spec: dict[str, Any],
        segment: int,
        seconds: float,
        bar: Progress,
        watch: Watch | None = None,
    ) -> None:
        self.checkpoint, self.spec, self.segment, self.bar, self.watch = checkpoint, spec, segment, bar, watch
        self._before, self._start = seconds, time.monotonic()

    def seconds(self) -> float:
        """Seconds of training, of earlier calls too."""
        return self._before + time.monotonic() - self._start

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step."""
        self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, after the validation of the segment."""
        assert isinstance(pl_module, PDMModule)
        pl_module.flush()
        self._show(pl_module.history[-1])
        self.checkpoint.parent.mkdir(exist_ok=True)
        fresh = self.checkpoint.with_suffix(".tmp")
        trainer.save_checkpoint(fresh)
        # Lightning's own save goes through the temporary directory, which may lie on another disk
        sync(fresh)
        os.replace(fresh, self.checkpoint)
        write_text(self.checkpoint.parent.parent / "log.csv", history_csv(pl_module.history))
        if self.watch is not None and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self.watch(pl_module.history)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add what :func:`fit` needs to go on."""
        own = {"spec": json.dumps(self.spec), "segment": self.segment, "seconds": self.seconds()}
        checkpoint["pdm_fit"] = own | {"step": int(pl_module.history[-1]["step"])}

    def _show(self, row: Mapping[str, float]) -> None:
        shown = {key.removeprefix("val/"): row[key] for key in ("val/loss", "val/accuracy") if key in row}
        self.bar.update(0, **shown)


def _saved(checkpoint: Path, own: dict[str, Any]) -> dict[str, Any]:
    """Read what :class:`Segments` added to a checkpoint; nothing where there is none."""
    if not checkpoint.exists():
        return {}
    saved: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)["pdm_fit"]
    check_same(json.loads(saved["spec"]), own, checkpoint.parent.parent)
    return saved


def _data_module(dataset: ImageData, spec: Mapping[str, Any], segment: int | None) -> PDMDataModule:
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


def _module(
    classifier: Classifier, spec: Mapping[str, Any], total_steps: int, teacher: Classifier | None
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
    )


def _trainer(
    device: torch.device, segments: int, folder: Path, loggers: Sequence[Any], callback: Segments
) -> pl.Trainer:
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        max_epochs=segments,
        reload_dataloaders_every_n_epochs=1,
        logger=list(loggers) or False,
        callbacks=[callback],
        # one process on one device, also inside a Slurm job, which Lightning would take for its own
        plugins=[LightningEnvironment()],
        default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _run(trainer: pl.Trainer, module: PDMModule, data: PDMDataModule, checkpoint: Path | None) -> None:
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        # Lightning turns Ctrl+C into an exit of the process and leaves the signal ignored
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _calm() -> Iterator[None]:
    """Silence what Lightning says of devices, tips and loaders; errors stay."""
    names = ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
