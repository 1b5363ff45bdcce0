"""Networks, and the classifier that centres, embeds and reads out."""

from __future__ import annotations

from pdm_lightning.models.classifier import Classifier, WrappedClassifier, wrap
from pdm_lightning.models.resnet import ResNet

__all__ = ["Classifier", "ResNet", "WrappedClassifier", "wrap"]
