"""The detector in use: fit it to a classifier, save it as one file, and ask it which images not to trust."""

from pdm_lightning.guard.architecture import Architecture
from pdm_lightning.guard.checks import GuardFileError
from pdm_lightning.guard.guard import Guard, Scored
from pdm_lightning.guard.picture import ImageError, Limits
from pdm_lightning.guard.preprocessing import Preprocessing
from pdm_lightning.guard.provenance import Provenance
from pdm_lightning.guard.rates import Rate, p_values

__all__ = [
    "Architecture",
    "Guard",
    "GuardFileError",
    "ImageError",
    "Limits",
    "Preprocessing",
    "Provenance",
    "Rate",
    "Scored",
    "p_values",
]
