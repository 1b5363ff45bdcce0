"""Loss terms of a defence, one a file, and their weighted sum."""

from __future__ import annotations

from pdm_lightning.losses.base import Outputs, Term
from pdm_lightning.losses.combined import CombinedLoss
from pdm_lightning.losses.cross_entropy import CrossEntropy
from pdm_lightning.losses.distillation import Distillation
from pdm_lightning.losses.input_gradient import InputGradient
from pdm_lightning.losses.jacobian import Jacobian
from pdm_lightning.losses.large_margin import LargeMargin
from pdm_lightning.losses.look import Sight, check_layers, look, unknown_layer
from pdm_lightning.losses.reduce_variance import ReduceVariance
from pdm_lightning.losses.reverse_cross_entropy import ReverseCrossEntropy
from pdm_lightning.losses.siamese import Siamese

__all__ = [
    "CombinedLoss",
    "CrossEntropy",
    "Distillation",
    "InputGradient",
    "Jacobian",
    "LargeMargin",
    "Outputs",
    "ReduceVariance",
    "ReverseCrossEntropy",
    "Siamese",
    "Sight",
    "Term",
    "check_layers",
    "look",
    "unknown_layer",
]
