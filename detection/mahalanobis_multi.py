"""Mahalanobis distances of several layers, weighted by a regression on one attack (Lee et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from typing_extensions import Self

from detection.features import Features, View
from detection.mahalanobis import Mahalanobis
from detection.regression import regress, weighted


class MahalanobisMulti(Mahalanobis):
    """Score = log odds of a logistic regression on the layers' squared Mahalanobis distances.

    score(x) = sum_l w_l M_l(x) + b

    The regression is fitted on the misclassified adversarial images against the clean training images that are
    classified correctly; the Gaussians were fitted on the latter too, as in the paper's own code. What it learns, it
    learns for that attack. The paper's step on the image is left out.

    Parameters
    ----------
    layers : sequence of str
        "embedding", "logits" or names of submodules.
    shrinkage : float
        0 <= shrinkage <= 1, see `detection.mahalanobis.whitener`.

    Raises
    ------
    ValueError
        For parameters outside these ranges.

    References
    ----------
    Lee, Lee, Lee & Shin, A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
    Attacks, NeurIPS 2018, section 2.2 and algorithm 1.
    """

    needs_attack = True

    def __init__(
        self,
        layers: Sequence[str] = ("backbone.stage1", "backbone.stage2", "backbone.stage3", "embedding"),
        shrinkage: float = 1e-6,
    ) -> None:
        super().__init__(layers, shrinkage)

    @property
    def _names(self) -> tuple[str, ...]:
        return (*super()._names, "weights", "bias")

    def fit(self, train: Features, validation: Features, adversarial: Features | None = None) -> Self:
        """Fit the Gaussians to `train` and the regression to `train` and `adversarial`.

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
            As in `Mahalanobis.fit` and `detection.regression.examples`.
        """
        return self._learn(regress(type(self).__name__, train, adversarial, self._gaussians, self._per_layer))

    def score(self, view: View) -> Tensor:
        """Score each row: (N,) float64, log odds; the gradient flows back."""
        learnt = self._recall(view.layer(self.layers[0]).device)
        return weighted(self._per_layer(view, learnt), learnt["weights"], learnt["bias"])
