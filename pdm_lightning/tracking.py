"""Loggers of a training beside the CSV file that it always writes: Weights & Biases, TensorBoard.

Nothing here is ever read back: reports are made from the store alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline")


@contextlib.contextmanager
def tracking(
    cfg: Mapping[str, Any], folder: Path, run_id: str, config: Mapping[str, Any], group: str = ""
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

    Yields
    ------
    list of Lightning loggers
        Empty for ``csv``.
    """
    loggers = make_loggers(cfg, folder, run_id, config, group)
    status = "failed"
    try:
        yield loggers
        status = "success"
    finally:
        for logger in loggers:
            _finish(logger, status)


def make_loggers(
    cfg: Mapping[str, Any], folder: Path, run_id: str, config: Mapping[str, Any], group: str = ""
) -> list[Any]:
    """Return the Lightning loggers that `cfg` asks for; see `tracking`, which also finishes them.

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
    return [] if make is None else [make(cfg, Path(folder), run_id, dict(config), group)]


def _need(package: str, install: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(
            f"logger={package} needs a package that is not installed: pip install {install}"
        )


def _tensorboard(
    cfg: Mapping[str, Any], folder: Path, run_id: str, config: dict[str, Any], group: str
) -> Any:
    _need("tensorboard", "tensorboard")
    from pytorch_lightning.loggers import TensorBoardLogger

    logger = TensorBoardLogger(
        save_dir=folder / "tensorboard", name=group, version=run_id, default_hp_metric=False
    )
    logger.log_hyperparams(config)
    return logger


def _wandb(cfg: Mapping[str, Any], folder: Path, run_id: str, config: dict[str, Any], group: str) -> Any:
    _need("wandb", "wandb")
    from pytorch_lightning.loggers import WandbLogger

    mode = wandb_mode(cfg.get("mode", "auto"))
    run = _start_wandb(cfg, folder, run_id, config, group, mode)
    # steps may start again after an interruption: the x axis is the trainer's step, not the call's number
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    if run.settings.mode == "offline":
        log.warning("W&B writes offline; to upload it later: wandb sync %s", Path(run.dir).parent)
    return WandbLogger(experiment=run, project=cfg.get("project"), save_dir=str(folder))


def _start_wandb(
    cfg: Mapping[str, Any], folder: Path, run_id: str, config: dict[str, Any], group: str, mode: str
) -> Any:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    # the two places outside `dir` that W&B would write to: its caches in the home folder
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(variable, str((folder / "wandb" / "cache").resolve()))

    def start(how: str) -> Any:
        return wandb.init(
            project=cfg.get("project"),
            entity=cfg.get("entity"),
            tags=list(cfg.get("tags") or []),
            group=group or None,
            id=run_id,
            resume="allow",
            config=config,
            dir=str(folder),
            mode=how,  # type: ignore[arg-type]
            settings=wandb.Settings(console="off", silent=True),
        )

    try:
        return start(mode)
    except wandb.Error as error:
        if mode == "offline" or cfg.get("mode") == "online":
            raise
        log.warning("W&B cannot be reached (%s): going on offline", str(error).splitlines()[0])
        return start("offline")


def wandb_mode(mode: str) -> str:
    """Decide between ``online`` and ``offline``, so that W&B never stops to ask.

    Parameters
    ----------
    mode : str
        ``auto``: as WANDB_MODE says; where that is not set, online if somebody is logged in.

    Raises
    ------
    ValueError
        Where the mode is unknown, or it is ``online`` and nobody is logged in.
    """
    if mode not in MODES:
        raise ValueError(f"logger.mode={mode} is unknown: use one of {', '.join(MODES)}")
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
        return "offline" if mode == "dryrun" else mode
    if mode == "online" and not logged_in():
        raise ValueError(
            "logger.mode=online, but nobody is logged in to W&B: run `wandb login`, or set WANDB_API_KEY"
        )
    return mode


def logged_in() -> bool:
    """Whether there is a W&B key: in WANDB_API_KEY, or for W&B's host in a netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        # a file that cannot be read has no key for us
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            # `hosts`, because `authenticators` falls back to an entry for any host
            if host in netrc.netrc(path).hosts:
                return True
    return False


def _finish(logger: Any, status: str) -> None:
    """Close a logger; its trouble is reported, but must not hide, or spoil, the training's own end."""
    try:
        logger.finalize(status)
        finish = getattr(logger.experiment, "finish", None)
        if finish is not None:
            finish(exit_code=0 if status == "success" else 1)
    except Exception as error:
        log.warning("the logger could not be finished: %s", error)
