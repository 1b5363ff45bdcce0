"""Networks, and the classifier that centres, embeds and reads out."""

from __future__ import annotations

from pdm_lightning.models.classifier import Classifier
from pdm_lightning.models.library import timm_network, torchvision_network
from pdm_lightning.models.resnet import ResNet
from pdm_lightning.models.wrapped import WrappedClassifier

__all__ = ["Classifier", "ResNet", "WrappedClassifier", "timm_network", "torchvision_network"]
