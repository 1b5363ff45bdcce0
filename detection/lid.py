"""Local intrinsic dimensionality of layers, weighted by a regression on one attack (Ma et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from detection.features import Features, View
from detection.learner import Learner, every_class, layer_names, whole
from detection.neighbours import distances, draw, nearest
from detection.regression import regress, weighted

# distances below this count as this: duplicates of a point are no neighbours at distance 0
SMALLEST = 1e-12
# neighbours all at one distance have no finite dimension: the largest is 1e6
FLATTEST = 1e-6


def local_dimension(points: Tensor, reference: Tensor, k: int) -> Tensor:
    """Estimate the local intrinsic dimensionality at each point.

    LID(z) = -(1 / k sum_{i=1..k} log(r_i / r_k))^-1,    r_i the distance to the i-th nearest reference

    A reference that equals the point is the point itself and no neighbour of it (one such; further ones are
    duplicates, at a distance of 1e-12).

    Parameters
    ----------
    points, reference : Tensor
        (N, d) and (M, d) float64, M > k; the gradient flows back to the points.
    k : int
        Neighbours, >= 2.

    Returns
    -------
    Tensor
        (N,) float64 in (0, 1e6].
    """
    found = distances(points, reference, nearest(points, reference, k + 1)).sort(dim=1).values
    radii = torch.where(found[:, :1] == 0, found[:, 1:], found[:, :-1])
    logs = radii.clamp(min=SMALLEST).log()
    return -1 / (logs - logs[:, -1:]).mean(dim=1).clamp(max=-FLATTEST)


class LID(Learner):
    """Score = log odds of a logistic regression on the layers' local intrinsic dimensionalities.

    score(x) = sum_l w_l LID_l(x) + b

    Neighbours come from one fixed draw of clean training images, `reference` of each class. (The paper takes them
    from the minibatch of 100 that the image is in; its scores depend on which images stand side by side.) The
    regression is fitted on the misclassified adversarial images against the clean training images that are
    classified correctly, and is good for that attack; the paper's images with random noise are left out.

    Parameters
    ----------
    layers : sequence of str
        "embedding", "logits" or names of submodules.
    k : int
        Neighbours, >= 2; the paper has 20 or 30.
    reference : int
        Training images per class among which neighbours are looked for, >= 1 (all of a smaller class).
    seed : int
        >= 0; class c's images depend on (seed, c) alone.

    Raises
    ------
    ValueError
        For parameters outside these ranges.

    References
    ----------
    Ma et al., Characterizing Adversarial Subspaces Using Local Intrinsic Dimensionality, ICLR 2018, equation 4 and
    algorithm 1.
    """

    needs_attack = True
    differentiable = True

    def __init__(
        self,
        layers: Sequence[str] = ("backbone.stage1", "backbone.stage2", "backbone.stage3", "embedding"),
        k: int = 20,
        reference: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.layers, self.k = list(layer_names(layers)), whole("k", k, 2)
        self.reference, self.seed = whole("reference", reference, 1), whole("seed", seed, 0)

    @property
    def reads(self) -> tuple[str, ...]:
        """The layers."""
        return tuple(self.layers)

    @property
    def _names(self) -> tuple[str, ...]:
        return (*(f"{layer}.reference" for layer in self.layers), "weights", "bias")

    def fit(self, train: Features, validation: Features, adversarial: Features | None = None) -> Self:
        """Draw the reference images from `train`, and fit the regression to `train` and `adversarial`.

        Parameters
        ----------
        train : Features
            With true labels.
        validation : Features
            Not read: it is left for the threshold.
        adversarial : Features
            Of attacked training images, with true labels.

        Raises
        ------
        ValueError
            For too few images to find k neighbours, features that are not finite, and as in
            `detection.regression.examples`.
        """
        return self._learn(regress("LID", train, adversarial, self._references, self._per_layer))

    def _references(self, train: Features) -> dict[str, Tensor]:
        """Features of the images among which neighbours are looked for, by layer."""
        rows = draw(every_class(train.labels, train.num_classes, "LID"), self.reference, self.seed)
        if len(rows) <= self.k:
            raise ValueError(
                f"LID: k={self.k} neighbours of {len(rows)} reference images: lower detector.k or raise "
                "detector.reference"
            )
        return {f"{n}.reference": self._layer(train, n, "training").detach()[rows] for n in self.layers}

    def _per_layer(self, source: Features | View, learnt: dict[str, Tensor]) -> Tensor:
        """Local dimension in each layer: (N, L) float64."""
        found = []
        for layer in self.layers:
            reference = learnt[f"{layer}.reference"]
            points = self._layer(source, layer, "scored", reference.shape[1])
            found.append(local_dimension(points, reference, self.k))
        return torch.stack(found, dim=1)

    def score(self, view: View) -> Tensor:
        """Score each row: (N,) float64, log odds; the gradient flows back."""
        learnt = self._recall(view.layer(self.layers[0]).device)
        return weighted(self._per_layer(view, learnt), learnt["weights"], learnt["bias"])
