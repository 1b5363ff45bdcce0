"""Detectors that read the readout logits and learn nothing, and the softmax without its saturation."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import Self

from detection.features import Features, View
from detection.learner import Learner


class ClassCount(Learner):
    """A detector that learns the number of classes K alone, which guards against scoring another model."""

    least_classes = 2

    @property
    def reads(self) -> tuple[str, ...]:
        """The logits."""
        return ("logits",)

    @property
    def _names(self) -> tuple[str, ...]:
        return ("classes",)

    def fit(self, train: Features, validation: Features, adversarial: Features | None = None) -> Self:
        """Learn the number of classes from `train`; ValueError where it is too small for the score.

        Parameters
        ----------
        train : Features
            Its number of classes counts.
        validation, adversarial : Features, optional
            Not read.
        """
        if train.num_classes < self.least_classes:
            raise ValueError(
                f"{type(self).__name__} needs at least {self.least_classes} classes, got {train.num_classes}: "
                "choose another detector"
            )
        return self._learn({"classes": torch.tensor([train.num_classes])})

    @property
    def _count(self) -> int:
        return int(self._recall()["classes"])


class LogitScore(ClassCount):
    """Score of the (N, K) logits and of the class that counts as predicted."""

    differentiable = True

    def score(self, view: View) -> Tensor:
        """Score each row as its predicted class: (N,) float64; the gradient flows back."""
        return self.score_as(view, view.predicted)

    def score_as(self, view: View, classes: Tensor) -> Tensor:
        """Score each row as if it were predicted to be the class given, (N,) int64."""
        logits = self._layer(view, "logits", "scored", self._count)
        self._check_classes(classes, len(logits), logits.shape[1])
        return self._of(logits, classes.to(logits.device))

    @abstractmethod
    def _of(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Score (N, K) float64 logits as classes (N,) int64."""


def without(logits: Tensor, classes: Tensor) -> Tensor:
    """Logits (N, K) with minus infinity in the column of each row's class (N,)."""
    own = torch.zeros_like(logits, dtype=torch.bool).scatter(1, classes[:, None], True)
    return logits.masked_fill(own, -math.inf)


def log_rest(logits: Tensor, classes: Tensor) -> Tensor:
    """Log softmax probability of all other classes together.

    log(1 - p_c) = logsumexp_{i != c}(o_i) - logsumexp_i(o_i)

    Falls as p_c rises and goes on falling where p_c has become 1 in floating point, at p_c > 1 - 1e-16: no ties, and
    the gradient stays alive.

    Parameters
    ----------
    logits : Tensor
        (N, K) float64, K >= 2.
    classes : Tensor
        (N,) int64, the class c.

    Returns
    -------
    Tensor
        (N,) float64, <= 0.
    """
    return without(logits, classes).logsumexp(dim=1) - logits.logsumexp(dim=1)
