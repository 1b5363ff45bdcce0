"""Going through the runs of a study that has ended: each is written once, and trouble spoils nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pdm_lightning.tracking.ledger import Ledger
from pdm_lightning.tracking.records import Content, Record

log = logging.getLogger(__name__)

#: After so many failures without a success between them, the others would fail as well.
PATIENCE = 3
#: So many runs may have to be tracked again after a kill; to be sure of what was written takes W&B half a second.
BATCH = 25


class Sink(Protocol):
    """Where runs are written to."""

    @property
    def mode(self) -> str:
        """``online`` or ``offline``."""

    @property
    def kinds(self) -> Sequence[str]:
        """Kinds of files that are kept."""

    def wanted(self, record: Record) -> bool:
        """Whether to write a run although it is there already."""

    def write(self, record: Record, content: Content) -> None:
        """Write one run and close it."""

    def settle(self) -> None:
        """Return when everything that was written is safe from a kill."""

    def told(self, runs: int) -> str:
        """One line for whoever waits: what was written, and where it is."""


def track(records: Iterable[Record], cfg: Mapping[str, Any], folder: Path, group: str) -> str:
    """Write every run that is not there yet.

    Parameters
    ----------
    records : iterable of Record
    cfg : mapping
        The ``logger`` group.
    folder : Path
        Everything is written below it.
    group : str
        The study.

    Returns
    -------
    str
        What was done, in one line; empty where there was nothing to do.
    """
    ledger = Ledger.of(cfg, folder, group)
    sink = _sink(cfg, folder, group, ledger)
    written, failed, streak = 0, [], 0
    for record in records:
        if ledger.knows(record, group, sink.mode) and not sink.wanted(record):
            continue
        try:
            content = record.load()
            kept = [upload for upload in content.uploads if upload.kind in sink.kinds]
            content.uploads = ledger.fresh(kept, sink.mode)
            sink.write(record, content)
            ledger.note(record, group, sink.mode, content.uploads)
        except Exception as error:
            failed.append(f"{record.title}: {type(error).__name__}: {error}")
            streak += 1
            if streak >= PATIENCE:
                break
        else:
            written, streak = written + 1, 0
            if written % BATCH == 0:
                sink.settle()
                ledger.settle()
    if written % BATCH:
        sink.settle()
        ledger.settle()
    if failed:
        stopped = ", and then no more were tried" if streak >= PATIENCE else ""
        first = " ".join(failed[0].split())
        log.warning("logger=%s: %d runs failed%s; the first: %s", cfg["name"], len(failed), stopped, first)
    return sink.told(written) if written else ""


def _sink(cfg: Mapping[str, Any], folder: Path, group: str, ledger: Ledger) -> Sink:
    if cfg["name"] == "wandb":
        from pdm_lightning.tracking.to_wandb import WandbSink

        return WandbSink(cfg, folder, group, ledger)
    from pdm_lightning.tracking.to_tensorboard import TensorBoardSink

    return TensorBoardSink(folder, group, ledger)
