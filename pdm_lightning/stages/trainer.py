"""The Lightning trainer: on one device, or one of several that train together, quiet in both cases."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy

from pdm_lightning.crew import leave_signals
from pdm_lightning.replicas import Replica
from pdm_lightning.spoken import quiet


def make_trainer(
    places: Sequence[torch.device],
    replica: Replica,
    segments: int,
    folder: Path,
    loggers: Sequence[Any],
    callback: pl.Callback,
) -> pl.Trainer:
    """Make the trainer of a number of segments.

    Parameters
    ----------
    places
        The device, or those of all processes, by their rank.
    replica
        Which of them this process is; several have met before (`pdm_lightning.replicas.join`).
    """
    cuda = places[0].type == "cuda"
    alone = replica.count == 1
    settings: dict[str, Any]
    if alone:
        # one process on one device, also inside a Slurm job, which Lightning would take for its own
        settings = {"plugins": [LightningEnvironment()]}
    else:
        # unused: a loss may leave out a network's last layer; also, what buckets hold then stays as it is, so that
        # sums, and with them a resumed training, are the same to the last bit
        strategy = DDPStrategy(cluster_environment=_Met(replica), find_unused_parameters=True)
        settings = {"strategy": strategy}
    return pl.Trainer(
        accelerator="gpu" if cuda else places[0].type,
        devices=[place.index or 0 for place in places] if cuda else len(places),
        max_epochs=segments,
        reload_dataloaders_every_n_epochs=1,
        logger=list(loggers) or False,
        callbacks=[callback] if alone else [callback, _Signals()],
        default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )


def run_trainer(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    checkpoint: Path | None,
) -> None:
    """Fit, from a checkpoint where one is given; Ctrl+C stays a KeyboardInterrupt and its handler stays in place."""
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
def calm() -> Iterator[None]:
    """Silence what Lightning says of devices, tips and loaders; errors stay."""
    names = ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric")
    with quiet(*names), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")
        yield


class _Met(ClusterEnvironment):
    """Processes of one machine that somebody else started and that have met already; no environment variable counts."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica

    creates_processes_externally = True
    main_address = "127.0.0.1"
    main_port = 0  # nobody asks: the process group is there

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.replica.count

    def global_rank(self) -> int:
        return self.replica.rank

    def local_rank(self) -> int:
        return self.replica.rank

    def node_rank(self) -> int:
        return 0

    def set_world_size(self, size: int) -> None:
        assert size == self.replica.count

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.replica.rank


class _Signals(pl.Callback):
    """Lightning answers a SIGTERM with a broadcast, wherever the process stands: the others may stand elsewhere."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the signals to the process that started this one, once Lightning has taken them."""
        leave_signals()
