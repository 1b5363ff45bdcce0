"""What an adversary holds: a classifier's readout, or classifier and detector together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from attacks.watched import Look
from detection import Detector, Features, View
from detection.base import threshold


@dataclass(frozen=True)
class Target:
    """What an adversary holds in its hands: a classifier's readout, and nothing else.

    Attributes
    ----------
    module : nn.Module
        Images (N, C, H, W) in [0, 1] to readout logits (N, K); an attack freezes it while it works.
    """

    module: nn.Module

    def logits(self, x: Tensor) -> Tensor:
        """Return the readout logits (N, K) of images (N, C, H, W) in [0, 1], differentiable."""
        logits: Tensor = self.module(x)
        return logits


@dataclass(frozen=True)
class Watch:
    """What there is to know of a detector: itself, fitted, and how it scores clean images.

    Attributes
    ----------
    detector : Detector
        Fitted.
    train, validation : Features
        Clean features of the classifier that it watches.
    fpr : float
        False-positive rate of the alarm that the adversary plans for, on the validation images.
    limits : str
        Whose scores tell what is typical of a class: ``validation`` images, or ``loo``: the detector's own training
        points, each left out of what it is scored with.
    """

    detector: Detector
    train: Features
    validation: Features
    fpr: float = 0.05
    limits: str = "validation"

    @cached_property
    def scores(self) -> Tensor:
        """(V,) float64 scores of the clean validation images."""
        with torch.no_grad():
            return self.detector.score(_view(self.validation))

    def class_scores(self) -> list[Tensor]:
        """Per class the sorted float64 scores of its clean images, scored as that class.

        Raises
        ------
        ValueError
            For a class without any, an unknown rule, or a detector without leave-one-out scores.
        """
        if self.limits == "loo":
            groups = self.detector.leave_one_out_scores()
        elif self.limits == "validation":
            with torch.no_grad():
                scores = self.detector.score_as(_view(self.validation), self.validation.labels)
            labels = self.validation.labels
            groups = [scores[labels == c] for c in range(self.validation.num_classes)]
        else:
            raise ValueError(f"craft.limits={self.limits}: use validation or loo")
        empty = [str(c) for c, group in enumerate(groups) if not len(group)]
        if empty:
            raise ValueError(f"no clean validation image of class {', '.join(empty)}: raise data.val_size")
        return [group.sort().values for group in groups]


def _view(features: Features) -> View:
    return View.from_features(features.embeddings, features.logits)


def _typical(detector: Detector, train: Features) -> Tensor:
    """(M,) bool: classified correctly, and among the half of its class that looks the least adversarial."""
    with torch.no_grad():
        scores = detector.score_as(_view(train), train.labels)
    # compared with one another alone: kernels among them flatter themselves
    medians = torch.stack([scores[train.labels == c].quantile(0.5) for c in range(train.num_classes)])
    return (scores <= medians[train.labels]) & (train.predicted == train.labels)


class WatchedTarget(Target):
    """A classifier and its detector, both in the adversary's hands; see `attacks.Watched` for what it offers.

    Parameters
    ----------
    module : nn.Module
        Has ``embed_and_logits(x)``.
    watch : Watch
        Its detector.
    """

    def __init__(self, module: nn.Module, watch: Watch) -> None:
        super().__init__(module)
        place = next((p.device for p in module.parameters()), torch.device("cpu"))
        known, train = watch.scores, watch.train
        groups = watch.class_scores()
        spread = threshold(known, watch.fpr) - float(known.median())
        kept = _typical(watch.detector, train)
        fields = {
            "detector": watch.detector,
            "threshold": threshold(known, watch.fpr),
            "scale": spread if spread > 0 else 1.0,  # a constant score has no unit of its own
            "references": train.embeddings[kept].to(place),
            "reference_labels": train.labels[kept].to(place),
            "_groups": [group.to(place) for group in groups],
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    detector: Detector
    threshold: float
    scale: float
    references: Tensor
    reference_labels: Tensor
    _groups: list[Tensor]

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        """Logits, scores and embeddings of images (N, C, H, W) in one pass, all of them differentiable."""
        view = View.from_model(self.module, x)  # type: ignore[arg-type]
        scores = self.detector.score_as(view, view.predicted if classes is None else classes)
        return Look(view.logits, scores, view.embeddings)

    def limits(self, quantile: float) -> Tensor:
        """(K,) float64: per class, the score that the share `quantile` of its clean images does not exceed."""
        return torch.stack([group.quantile(quantile) for group in self._groups])
