"""Loggers of a training beside the CSV file that it always writes: W&B, TensorBoard."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pdm_lightning.tracking.ledger import Ledger
from pdm_lightning.tracking.login import wandb_mode
from pdm_lightning.tracking.session import start

log = logging.getLogger(__name__)


@contextlib.contextmanager
def tracking(
    cfg: Mapping[str, Any],
    folder: Path,
    run_id: str,
    config: Mapping[str, Any],
    group: str = "",
    *,
    name: str = "",
    tags: Iterable[str] = (),
) -> Iterator[list[Any]]:
    """Make the loggers that `cfg` asks for and finish them, also after an error.

    Parameters
    ----------
    cfg : mapping
        The ``logger`` group: ``name`` (``csv``, ``wandb`` or ``tensorboard``), ``project``, ``entity``,
        ``tags``, ``mode``.
    folder : Path
        Everything that loggers write lies below it.
    run_id : str
        The artifact's key: a training that goes on goes on in the same run.
    config : mapping
        The settings that determine the training.
    group : str
        The study; runs of one study stand together.
    name : str
        Shown as the run's name.
    tags : iterable of str
        Beside those of ``logger.tags``.

    Yields
    ------
    list of Lightning loggers
        Empty for ``csv``. Of the processes of one training, only the first shall ask.
    """
    loggers = make_loggers(cfg, folder, run_id, config, group, name=name, tags=tags)
    status = "failed"
    try:
        yield loggers
        status = "success"
    finally:
        for logger in loggers:
            _finish(logger, status)


def make_loggers(
    cfg: Mapping[str, Any],
    folder: Path,
    run_id: str,
    config: Mapping[str, Any],
    group: str = "",
    *,
    name: str = "",
    tags: Iterable[str] = (),
) -> list[Any]:
    """Return the Lightning loggers that `cfg` asks for; see `tracking`, which also finishes them.

    A logger that cannot be made is told of in one line, and the training goes on without it.

    Raises
    ------
    ValueError
        Where the logger or its mode is unknown, or ``mode=online`` and nobody is logged in.
    ModuleNotFoundError
        Where the logger's package is not installed.
    """
    makers = {"csv": None, "wandb": _wandb, "tensorboard": _tensorboard}
    if cfg["name"] not in makers:
        raise ValueError(f"logger={cfg['name']} is unknown: use one of {', '.join(makers)}")
    make = makers[cfg["name"]]
    if make is None:
        return []
    _need(cfg["name"])
    if cfg["name"] == "wandb":
        wandb_mode(cfg.get("mode", "auto"))  # what was asked for is checked; what W&B makes of it is not
    from pytorch_lightning.utilities import rank_zero_only

    from pdm_lightning.tracking.guard import Guarded

    # whoever gets here is the one that logs, whatever Lightning has found in the environment
    rank_zero_only.rank = 0  # type: ignore[attr-defined]  # set by Lightning in the same way
    try:
        logger, mode = make(cfg, Path(folder), run_id, dict(config), group, name, tags)
    except Exception as error:
        log.warning(
            "logger=%s failed (%s: %s): the training goes on without it",
            cfg["name"],
            type(error).__name__,
            error,
        )
        return []
    return [Guarded(logger, Ledger.of(cfg, Path(folder), group), run_id, mode)]


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(
            f"logger={package} needs a package that is not installed: pip install {package}"
        )


def _tensorboard(
    cfg: Mapping[str, Any],
    folder: Path,
    run_id: str,
    config: dict[str, Any],
    group: str,
    name: str,
    tags: Iterable[str],
) -> tuple[Any, str]:
    from pytorch_lightning.loggers import TensorBoardLogger

    logger = TensorBoardLogger(
        save_dir=folder / "tensorboard", name=group, version=run_id, default_hp_metric=False
    )
    logger.log_hyperparams(config)
    return logger, "offline"


def _wandb(
    cfg: Mapping[str, Any],
    folder: Path,
    run_id: str,
    config: dict[str, Any],
    group: str,
    name: str,
    tags: Iterable[str],
) -> tuple[Any, str]:
    from pytorch_lightning.loggers import WandbLogger

    run = start(cfg, folder, run_id, config=config, group=group, job="train", name=name, tags=tags, live=True)
    # steps may start again after an interruption: the x axis is the trainer's step, not the call's number
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    logger = WandbLogger(experiment=run, project=cfg.get("project"), save_dir=str(folder))
    return logger, run.settings.mode


def _finish(logger: Any, status: str) -> None:
    """Close a logger; its trouble is reported, but must not hide, or spoil, the training's own end."""
    try:
        logger.finalize(status)
        logger.finish(status)
    except Exception as error:
        log.warning("the logger could not be finished: %s", error)
