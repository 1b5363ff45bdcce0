"""Distance to the k-th nearest training feature (Sun et al. 2022)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Self

from detection.features import Features, View
from detection.learner import Learner, whole
from detection.neighbours import distances, nearest, unit


class KNN(Learner):
    """Score = Euclidean distance to the k-th nearest training feature, whatever its class.

    Own code, since `pytorch_ood.detector.KNN` goes through scikit-learn and passes no gradient. A training image is
    its own nearest neighbour.

    Parameters
    ----------
    k : int
        Which neighbour counts, >= 1; the paper has 50 for CIFAR-10 and 200 for CIFAR-100.
    normalize : bool
        Scale features to length 1 first.
    layer : str
        "embedding", "logits" or the name of a submodule.

    Raises
    ------
    ValueError
        For parameters outside these ranges.

    References
    ----------
    Sun, Ming, Zhu & Li, Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022, section 3.
    """

    differentiable = True

    def __init__(self, k: int = 50, normalize: bool = True, layer: str = "embedding") -> None:
        super().__init__()
        if not layer or not isinstance(layer, str):
            raise ValueError(f"layer must be the name of a layer, got {layer!r}")
        self.k, self.normalize, self.layer = whole("k", k, 1), bool(normalize), layer

    @property
    def reads(self) -> tuple[str, ...]:
        """The one layer."""
        return (self.layer,)

    @property
    def _names(self) -> tuple[str, ...]:
        return (f"{self.layer}.{'directions' if self.normalize else 'points'}",)

    def fit(self, train: Features, validation: Features, adversarial: Features | None = None) -> Self:
        """Keep the features of `train`; ValueError for fewer than k, or where they are not finite.

        Parameters
        ----------
        train : Features
            Its labels do not count.
        validation, adversarial : Features, optional
            Not read.
        """
        if len(train) < self.k:
            raise ValueError(f"KNN: k={self.k} neighbours of {len(train)} training images: lower detector.k")
        return self._learn({self._names[0]: self._points(train, "training")})

    def _points(self, source: Features | View, which: str, width: int | None = None) -> Tensor:
        points = self._layer(source, self.layer, which, width)
        return unit(points) if self.normalize else points

    def score(self, view: View) -> Tensor:
        """Score each row: (N,) float64 in units of the layer; the gradient flows back."""
        (reference,) = self._recall(view.layer(self.layer).device).values()
        points = self._points(view, "scored", reference.shape[1])
        last = nearest(points, reference, self.k)[:, -1:]
        return distances(points, reference, last)[:, 0]
