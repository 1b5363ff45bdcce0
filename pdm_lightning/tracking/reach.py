"""What is known of W&B's being out of reach: in this process, and for some minutes in others of this machine.

Each attempt to reach it waits, and a study may train in hundreds of processes.
"""

from __future__ import annotations

import json
import logging
import platform
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pdm_lightning.spoken import duration
from pdm_lightning.tracking.login import server, wandb_mode

log = logging.getLogger(__name__)

#: Seconds for which other processes go without another attempt.
KEPT = 600.0


@dataclass
class _State:
    """What this process has learned; it keeps to it, so that what it writes is of one mode."""

    unreachable: bool = False


_state = _State()


def current_mode(mode: str, folder: Path) -> str:
    """Like `wandb_mode`, but offline where W&B could not be reached.

    Parameters
    ----------
    mode : str
        ``logger.mode``.
    folder : Path
        Of all logs.
    """
    asked = wandb_mode(mode)
    if asked in ("offline", "disabled"):
        return asked
    if not _state.unreachable and (age := _age(folder)) is not None:
        _state.unreachable = True
        log.warning(
            "W&B could not be reached %s ago: going on offline (delete %s to try at once)",
            duration(age),
            _note(folder),
        )
    return "offline" if _state.unreachable else asked


def lost(folder: Path, *, keep: bool) -> None:
    """From now on this process is offline, and so are, where it is to be kept, those that start soon.

    Parameters
    ----------
    folder : Path
        Of all logs.
    keep : bool
        For what took a while to find out, and whoever is at the keyboard cannot mend.
    """
    _state.unreachable = True
    if keep:
        note = _note(folder)
        with suppress(OSError):  # then the next process waits, too
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps({"server": server(), "time": time.time()}) + "\n", encoding="utf-8")


def _age(folder: Path) -> float | None:
    """Seconds since this machine failed to reach the same server, if they are few; None for a note that is damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        note = json.loads(_note(folder).read_text(encoding="utf-8"))
        age = time.time() - float(note["time"])
        if note["server"] == server() and 0 <= age < KEPT:
            return age
    return None


def _note(folder: Path) -> Path:
    # a cluster's nodes often have no way out, and the machine that collects their results has one
    machine = re.sub(r"[^\w.-]", "_", platform.node())
    return Path(folder) / "wandb" / "unreachable" / f"{machine}.json"
