"""Deep k-nearest neighbours (Papernot & McDaniel 2018): do the neighbours' labels agree with the prediction?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from detection.features import Features, View
from detection.learner import Learner, layer_names, whole
from detection.neighbours import nearest, unit


class DkNN(Learner):
    """Score = 1 - p, p the empirical p-value of the neighbours' disagreement with the predicted class.

    a(x, c) = sum over layers of how many of the k nearest training features have a label other than c
    p(x)    = share of clean validation images (with their true label) whose a is at least a(x, predicted)
    score   = 1 - p + a / (L k) / (V + 1), for L layers and V validation images

    The last term is smaller than the smallest step of p and sets apart what p ties: the score is a strictly rising
    function of the count a, so calibration on validation images does not favour them at a threshold that is set on
    them, too. Counts have no gradient. A training image is its own nearest neighbour.

    Parameters
    ----------
    layers : sequence of str
        "embedding", "logits" or names of submodules.
    k : int
        Neighbours in each layer, >= 1.
    normalize : bool
        Compare directions, as the paper's hashing by cosine does.

    Raises
    ------
    ValueError
        For parameters outside these ranges.

    References
    ----------
    Papernot & McDaniel, Deep k-Nearest Neighbors: Towards Confident, Interpretable and Robust Deep Learning, 2018
    (arXiv:1803.04765), section IV, algorithm 1.
    """

    differentiable = False

    def __init__(
        self,
        layers: Sequence[str] = ("backbone.stage1", "backbone.stage2", "backbone.stage3", "embedding"),
        k: int = 75,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.layers, self.k, self.normalize = list(layer_names(layers)), whole("k", k, 1), bool(normalize)

    @property
    def reads(self) -> tuple[str, ...]:
        """The layers, and the logits for the predicted class."""
        return (*self.layers, *(() if "logits" in self.layers else ("logits",)))

    @property
    def _names(self) -> tuple[str, ...]:
        part = "directions" if self.normalize else "points"
        return (*(f"{layer}.{part}" for layer in self.layers), "labels", "classes", "calibration")

    def fit(self, train: Features, validation: Features, adversarial: Features | None = None) -> Self:
        """Keep the features and labels of `train`, and calibrate on `validation`.

        Parameters
        ----------
        train, validation : Features
            Clean, with true labels.
        adversarial : Features, optional
            Not read.

        Raises
        ------
        ValueError
            For fewer training images than neighbours, no validation image, or features that are not finite.
        """
        if len(train) < self.k:
            raise ValueError(f"DkNN: k={self.k} neighbours of {len(train)} training images: lower detector.k")
        if not len(validation):
            raise ValueError("DkNN: no validation image to calibrate on: raise data.val_size")
        kept = [self._points(train, layer, "training").detach() for layer in self.layers]
        learnt = dict(zip(self._names, [*kept, train.labels], strict=False))
        learnt["classes"] = torch.tensor([train.num_classes])
        counts = self._disagreement(validation, validation.labels, learnt)
        return self._learn(learnt | {"calibration": counts.sort().values})

    def _points(self, source: Features | View, layer: str, which: str, width: int | None = None) -> Tensor:
        points = self._layer(source, layer, which, width)
        return unit(points) if self.normalize else points

    @torch.no_grad()
    def _disagreement(self, source: Features | View, classes: Tensor, learnt: dict[str, Tensor]) -> Tensor:
        """Neighbours over all layers that are not of the class given: (N,) int64."""
        total = torch.zeros_like(classes)
        for layer, name in zip(self.layers, self._names, strict=False):
            points = self._points(source, layer, "scored", learnt[name].shape[1])
            found = learnt["labels"][nearest(points, learnt[name], self.k)]
            total = total + (found != classes[:, None]).sum(dim=1)
        return total

    def score(self, view: View) -> Tensor:
        """Score each row as its predicted class: (N,) float64 in [0, 1 + 1 / (V + 1)]."""
        return self.score_as(view, view.predicted)

    def score_as(self, view: View, classes: Tensor) -> Tensor:
        """Score each row as the class given, (N,) int64."""
        points = view.layer(self.layers[0])
        learnt = self._recall(points.device)
        self._check_classes(classes, len(points), int(learnt["classes"]))
        counts = self._disagreement(view, classes.to(points.device), learnt)
        below = torch.searchsorted(learnt["calibration"], counts)  # how many are strictly less strange
        tie = counts.double() / (self.k * len(self.layers) * (len(learnt["calibration"]) + 1))
        return below.double() / len(learnt["calibration"]) + tie
