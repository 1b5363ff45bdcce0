"""Starting a W&B run: offline where W&B cannot be reached, under an id of ours also below a sweep's agent."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pdm_lightning.tracking.reach import current_mode, lost

log = logging.getLogger(__name__)

#: W&B refuses longer ones.
_TAG, _NAME = 64, 128
#: Seconds to wait for W&B before a run goes on offline; WANDB_INIT_TIMEOUT counts where it is set.
_WAIT = 30.0


@dataclass(frozen=True)
class Agent:
    """The run that a sweep's agent has started this process for.

    Attributes
    ----------
    sweep, run : str
        Their ids at W&B.
    parameters : dict
        What the agent asked for, as it wrote it down.
    """

    sweep: str
    run: str
    parameters: dict[str, Any] = field(default_factory=dict)


@cache
def sweep_agent() -> Agent | None:
    """The agent above this process, if there is one, taken out of the environment.

    W&B gives every run of a process the id that it finds there; a study has a run for the training beside the cell's.
    """
    sweep, run, path = (
        os.environ.pop(f"WANDB_{name}", "") for name in ("SWEEP_ID", "RUN_ID", "SWEEP_PARAM_PATH")
    )
    if not sweep or not run:
        return None
    return Agent(sweep, run, _parameters(Path(path)) if path else {})


def _parameters(path: Path) -> dict[str, Any]:
    import yaml

    with suppress(OSError, yaml.YAMLError):
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return {
            key: held["value"] for key, held in found.items() if isinstance(held, dict) and "value" in held
        }
    return {}


def start(
    cfg: Mapping[str, Any],
    folder: Path,
    run_id: str,
    *,
    config: Mapping[str, Any],
    group: str = "",
    job: str = "",
    name: str = "",
    tags: Iterable[str] = (),
    agent: Agent | None = None,
    live: bool = False,
) -> Any:
    """Start a run, or go on with it.

    Parameters
    ----------
    cfg : mapping
        The ``logger`` group.
    folder : Path
        Everything is written below it.
    run_id : str
        Of the run; with an `agent`, the run is the agent's.
    config : mapping
        Plain values.
    group, job, name : str
        W&B's group, job type and display name.
    tags : iterable of str
        Beside those of ``logger.tags``.
    live : bool
        Whether something runs meanwhile, so that the machine is worth watching.

    Returns
    -------
    wandb.Run

    Raises
    ------
    Exception
        Whatever W&B raises offline.
    """
    import wandb

    sweep_agent()  # before W&B looks at the environment
    folder.mkdir(parents=True, exist_ok=True)
    # the two places outside `dir` that W&B would write to: its caches in the home folder
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(variable, str((folder / "wandb" / "cache").resolve()))
    settings = wandb.Settings(console="off", silent=True, x_disable_stats=not live)
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings.init_timeout = _WAIT
    if agent is not None:
        settings.sweep_id = agent.sweep
        # W&B goes on with the sweep by what its runs say that they were asked for
        config = {**config, **agent.parameters}
    arguments = {
        # the agent names its own project, which the sweep may have been moved to
        "project": (os.environ.get("WANDB_PROJECT") if agent else None) or cfg.get("project"),
        "entity": (os.environ.get("WANDB_ENTITY") if agent else None) or cfg.get("entity"),
        "tags": run_tags(cfg, tags),
        "group": group or None,
        "job_type": job or None,
        "name": name[:_NAME] or None,
        "id": agent.run if agent else run_id,
        "resume": "allow",
        "config": dict(config),
        "dir": str(folder),
        "settings": settings,
    }
    return _reached(wandb, current_mode(cfg.get("mode", "auto"), folder), folder, arguments)


def _reached(wandb: Any, mode: str, folder: Path, arguments: dict[str, Any]) -> Any:
    """Start the run online, or, where that fails, offline: a study does not wait for W&B."""
    try:
        return wandb.init(mode=mode, **arguments)
    except wandb.Error as error:
        if mode == "offline":
            raise
        # a wrong key, which is an error of its own, is told at once and soon mended
        lost(folder, keep=type(error) is wandb.CommError)
        log.warning("W&B cannot be reached (%s): going on offline", _first_line(error))
        mode = "offline"
    except Exception as error:
        log.debug("W&B is started again (%s)", _first_line(error))
    # its service may have been killed, or hold the run's id from the first attempt: another one is started
    with suppress(Exception):  # there may be nothing left to end
        end_service()
    return wandb.init(mode=mode, **arguments)


def end_service() -> None:
    """End W&B's own process; when it has ended, all that finished runs were given is in their files, or uploaded.

    Raises
    ------
    Exception
        Where it was killed before.
    """
    import wandb

    wandb.teardown()


def run_tags(cfg: Mapping[str, Any], tags: Iterable[str]) -> list[str]:
    """The tags of ``logger.tags`` and others, each once, cut to the length that W&B allows."""
    named = [str(tag)[:_TAG] for tag in [*(cfg.get("tags") or []), *tags]]
    return list(dict.fromkeys(tag for tag in named if tag))


def axis_tags(axes: Mapping[str, Any]) -> list[str]:
    """The plain names of the chosen options, without what was overridden in them, and the seed."""
    return [
        f"seed={value}" if axis == "seed" else str(value).partition("[")[0] for axis, value in axes.items()
    ]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
