"""Weights & Biases and TensorBoard: trainings while they run, cells of a study when it has ended.

Nothing here is ever read back: reports are made from the store alone. Only this package knows W&B.
"""

from __future__ import annotations

from pdm_lightning.tracking.loggers import make_loggers, tracking
from pdm_lightning.tracking.login import MODES, logged_in, wandb_mode
from pdm_lightning.tracking.records import (
    MOST_IMAGES,
    MOST_POINTS,
    Content,
    Curve,
    Example,
    Measured,
    Record,
    Table,
    Upload,
)
from pdm_lightning.tracking.session import axis_tags
from pdm_lightning.tracking.track import track

__all__ = [
    "MODES",
    "MOST_IMAGES",
    "MOST_POINTS",
    "Content",
    "Curve",
    "Example",
    "Measured",
    "Record",
    "Table",
    "Upload",
    "axis_tags",
    "logged_in",
    "make_loggers",
    "track",
    "tracking",
    "wandb_mode",
]
