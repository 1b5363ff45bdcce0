"""A logger of a training that cannot spoil it, and that notes which rows it got."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning.loggers.logger import Logger

from pdm_lightning.tracking.ledger import Ledger
from pdm_lightning.tracking.session import end_service

log = logging.getLogger(__name__)


class Guarded(Logger):
    """A Lightning logger behind one that says of its trouble once, and then is silent.

    Parameters
    ----------
    inner : Logger
    ledger : Ledger
        Gets the rows once the run is finished, so that none is tracked again when the study has ended.
    key : str
        Of the training.
    mode : str
        ``online`` or ``offline``.
    """

    def __init__(self, inner: Logger, ledger: Ledger, key: str, mode: str) -> None:
        super().__init__()
        self.inner, self.ledger, self.key, self.mode = inner, ledger, key, mode
        self.broken = False
        self.rows: list[dict[str, float]] = []

    @property
    def name(self) -> str | None:
        """The inner logger's."""
        return self.inner.name

    @property
    def version(self) -> int | str | None:
        """The inner logger's."""
        return self.inner.version

    @property
    def experiment(self) -> Any:
        """The inner logger's."""
        return self.inner.experiment  # type: ignore[attr-defined]  # every logger of Lightning's has one

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row, unless an earlier one failed."""

        def write() -> None:
            self.inner.log_metrics(dict(metrics), step)
            self.rows.append(dict(metrics))

        self._try(write)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Pass on what Lightning knows of the module's arguments."""
        self._try(lambda: self.inner.log_hyperparams(params, *args, **kwargs))

    def save(self) -> None:
        """Have the inner logger write what it holds."""
        self._try(self.inner.save)

    def finalize(self, status: str) -> None:
        """Close the inner logger."""
        self._try(lambda: self.inner.finalize(status))

    def finish(self, status: str) -> None:
        """Close the run as well, also after trouble: what it got so far is kept."""
        finish = getattr(self.experiment, "finish", None)
        if finish is not None:
            finish(exit_code=0 if status == "success" else 1)
            end_service()
        if not self.broken:
            self.ledger.note_rows(self.key, self.rows, self.mode)
            self.ledger.settle()

    def _try(self, action: Callable[[], Any]) -> None:
        if self.broken:
            return
        try:
            action()
        except Exception as error:
            self.broken = True
            log.warning(
                "the logger failed (%s: %s): the training goes on without it", type(error).__name__, error
            )
