"""Data sets: `load_data` reads what conf/data/*.yaml names; the Lightning data module is in `data.module`."""

from pdm_lightning.data.base import ImageData, balanced_order, stratified_split, to_unit
from pdm_lightning.data.folder import image_folder
from pdm_lightning.data.loading import fingerprint, load_data
from pdm_lightning.data.sources import digits, torchvision_dataset

__all__ = [
    "ImageData",
    "balanced_order",
    "digits",
    "fingerprint",
    "image_folder",
    "load_data",
    "stratified_split",
    "to_unit",
    "torchvision_dataset",
]
