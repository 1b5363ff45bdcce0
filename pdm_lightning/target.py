"""What an adversary holds: a classifier's readout, or classifier and detector together."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from attacks.watched import Look
from detection import Detector, Features, View
from detection.base import threshold

BATCH = 1024
"""Clean images that a detector scores at a time."""


@dataclass(frozen=True)
class Target:
    """What an adversary holds in its hands: a classifier's readout, and nothing else.

    Attributes
    ----------
    module : nn.Module
        Images (N, C, H, W) in [0, 1] to readout logits (N, K); an attack freezes it while it works.
    exact : Target or None
        Who judges the result, where the module is a prepared copy of another.
    micro_batch : int or None
        Images whose forward and backward pass run together; None: all that an attack has in hand.
    slack : float
        By how much a margin of two logits may differ from that of `exact`.
    """

    module: nn.Module
    exact: Target | None = field(default=None, kw_only=True)
    micro_batch: int | None = field(default=None, kw_only=True)
    slack: float = field(default=0.0, kw_only=True)

    def logits(self, x: Tensor) -> Tensor:
        """Return the readout logits (N, K) of images (N, C, H, W) in [0, 1], differentiable."""
        logits: Tensor = self.module(x)
        return logits


def judged_by(target: Target, exact: Target, micro_batch: int | None, slack: float) -> Target:
    """The target, on a prepared copy, with who judges what it brings; whatever class a threat model made it of."""
    ready = copy.copy(target)
    for name, value in {"exact": exact, "micro_batch": micro_batch, "slack": slack}.items():
        object.__setattr__(ready, name, value)  # frozen, for one, but this one is new
    return ready


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
            return torch.cat([self.detector.score(view) for view in self.validation.views(BATCH)])

    @cached_property
    def threshold(self) -> float:
        """The alarm: a score strictly above it is flagged."""
        return threshold(self.scores, self.fpr)

    @cached_property
    def scale(self) -> float:
        """The unit of the scores: the alarm minus the median of clean images."""
        spread = self.threshold - float(self.scores.median())
        return spread if spread > 0 else 1.0  # a constant score has no unit of its own

    @cached_property
    def typical(self) -> Tensor:
        """(M,) bool: training images classified correctly, of the half of their class that looks least adversarial."""
        train = self.train
        scores = self._as_labelled(train)
        # compared with one another alone: kernels among them flatter themselves
        medians = torch.stack([scores[train.labels == c].quantile(0.5) for c in range(train.num_classes)])
        return (scores <= medians[train.labels]) & (train.predicted == train.labels)

    @cached_property
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
            scores, labels = self._as_labelled(self.validation), self.validation.labels
            groups = [scores[labels == c] for c in range(self.validation.num_classes)]
        else:
            raise ValueError(f"craft.limits={self.limits}: use validation or loo")
        empty = [str(c) for c, group in enumerate(groups) if not len(group)]
        if empty:
            raise ValueError(f"no clean validation image of class {', '.join(empty)}: raise data.val_size")
        return [group.sort().values for group in groups]

    def _as_labelled(self, found: Features) -> Tensor:
        """(N,) float64 scores of clean images, each as its own class."""
        parts = zip(found.views(BATCH), found.labels.split(BATCH), strict=True)
        with torch.no_grad():
            return torch.cat([self.detector.score_as(view, labels) for view, labels in parts])


@dataclass(frozen=True)
class WatchedTarget(Target):
    """A classifier and its detector, both in the adversary's hands; see `attacks.Watched` for what it offers.

    Attributes
    ----------
    module : nn.Module
        Has ``embed_and_logits(x)``.
    watch : Watch
        Its detector.
    """

    watch: Watch

    def __post_init__(self) -> None:
        _ = self.watch.class_scores  # what is wrong with the classes is said before an attack begins

    @property
    def threshold(self) -> float:
        """The alarm that the adversary plans for."""
        return self.watch.threshold

    @property
    def scale(self) -> float:
        """The unit of the scores."""
        return self.watch.scale

    @property
    def references(self) -> Tensor:
        """(M, d) embeddings of typical training images."""
        return self.watch.train.embeddings[self.watch.typical].to(self._place)

    @property
    def reference_labels(self) -> Tensor:
        """(M,) int64, their classes."""
        return self.watch.train.labels[self.watch.typical].to(self._place)

    @property
    def _place(self) -> torch.device:
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        """Logits, scores and embeddings of images (N, C, H, W) in one pass, all of them differentiable."""
        view = View.from_model(self.module, x, self.watch.detector.reads)  # type: ignore[arg-type]
        scores = self.watch.detector.score_as(view, view.predicted if classes is None else classes)
        return Look(view.logits, scores, view.embeddings)

    def limits(self, quantile: float) -> Tensor:
        """(K,) float64: per class, the score that the share `quantile` of its clean images does not exceed."""
        return torch.stack([group.quantile(quantile) for group in self.watch.class_scores]).to(self._place)
