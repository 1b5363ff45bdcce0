"""Mahalanobis distance to the nearest class (Lee et al. 2018), plain and relative (Ren et al. 2021).

pytorch-ood's own scores them without a gradient, in float32, and leaves the sum of squares undivided by N.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from detection.features import Features, View
from detection.learner import Learner, every_class, layer_names


def whitener(centred: Tensor, shrinkage: float) -> Tensor:
    """Inverse W of the Cholesky factor of a shrunk covariance S: W S W^T = I.

    S = (1 - a) C + a tr(C) / d I,    C = X^T X / N

    Parameters
    ----------
    centred : Tensor
        X, (N, d) float64, each row less its mean.
    shrinkage : float
        a in [0, 1].

    Returns
    -------
    Tensor
        (d, d) float64, lower triangular.

    Raises
    ------
    ValueError
        Where S has no inverse.
    """
    covariance = centred.T @ centred / len(centred)
    unit = torch.eye(len(covariance), dtype=centred.dtype, device=centred.device)
    mixed = (1 - shrinkage) * covariance + shrinkage * covariance.diagonal().mean() * unit
    factor, failed = torch.linalg.cholesky_ex(mixed)
    # a pivot this small is rounding: the inverse would be noise
    if int(failed) or bool(factor.diagonal().min().square() < 1e-14 * mixed.diagonal().max()):
        raise ValueError(
            "the covariance of the training features has no inverse: raise detector.shrinkage or give more images"
        )
    return torch.linalg.solve_triangular(factor, unit, upper=False)


def squared_distances(points: Tensor, means: Tensor, white: Tensor) -> Tensor:
    """Squared Mahalanobis distances (z - m)^T S^-1 (z - m): (N, K) of points (N, d) from means (K, d).

    One product instead of N K differences; counted from the mean of the means, which keeps the cancellation small.
    """
    centre = means.mean(dim=0)
    z, m = (points - centre) @ white.T, (means - centre) @ white.T
    return z.square().sum(dim=1, keepdim=True) + m.square().sum(dim=1) - 2 * z @ m.T


class Mahalanobis(Learner):
    """Score = squared Mahalanobis distance to the nearest class mean, summed over layers.

    M(x) = sum_layers min_c (z - mu_c)^T S^-1 (z - mu_c)

    mu_c are the class means of the training features and S their tied covariance: that of all training features less
    the mean of their true class, divided by N, and shrunk a little (see `whitener`), since units that never fire
    leave it without an inverse. The paper's step on the image is left out; for its regression over layers see
    `MahalanobisMulti`.

    Parameters
    ----------
    layers : sequence of str
        "embedding", "logits" or names of submodules.
    shrinkage : float
        0 <= shrinkage <= 1; the paper has none.

    Raises
    ------
    ValueError
        For parameters outside these ranges.

    References
    ----------
    Lee, Lee, Lee & Shin, A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
    Attacks, NeurIPS 2018, equations 1 and 2.
    """

    differentiable = True
    _parts: tuple[str, ...] = ("means", "whitener")

    def __init__(self, layers: Sequence[str] = ("embedding",), shrinkage: float = 1e-6) -> None:
        super().__init__()
        if isinstance(shrinkage, bool) or not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage must lie in [0, 1], got {shrinkage!r}")
        self.layers, self.shrinkage = list(layer_names(layers)), float(shrinkage)

    @property
    def reads(self) -> tuple[str, ...]:
        """The layers."""
        return tuple(self.layers)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"{layer}.{part}" for layer in self.layers for part in self._parts)

    def fit(self, train: Features, validation: Features, adversarial: Features | None = None) -> Self:
        """Fit the Gaussians to `train`.

        Parameters
        ----------
        train : Features
            With true labels.
        validation, adversarial : Features, optional
            Not read.

        Raises
        ------
        ValueError
            For a class without training images, features that are not finite or a covariance without inverse.
        """
        return self._learn(self._gaussians(train))

    def _gaussians(self, train: Features) -> dict[str, Tensor]:
        groups = every_class(train.labels, train.num_classes, type(self).__name__)
        found: dict[str, Tensor] = {}
        for layer in self.layers:
            points = self._layer(train, layer, "training").detach()
            means = torch.stack([points[rows].mean(dim=0) for rows in groups])
            parts = self._fit_layer(points, means, train.labels)
            found |= {f"{layer}.{part}": value for part, value in parts.items()}
        return found

    def _fit_layer(self, points: Tensor, means: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"means": means, "whitener": whitener(points - means[labels], self.shrinkage)}

    def score(self, view: View) -> Tensor:
        """Score each row: (N,) float64, squared distance; the gradient flows back."""
        return self._per_layer(view, self._recall(view.layer(self.layers[0]).device)).sum(dim=1)

    def _per_layer(self, source: Features | View, learnt: dict[str, Tensor]) -> Tensor:
        """Score each layer by itself: (N, L) float64."""
        scores = []
        for layer in self.layers:
            parts = {part: learnt[f"{layer}.{part}"] for part in self._parts}
            points = self._layer(source, layer, "scored", parts["means"].shape[1])
            scores.append(self._score_layer(points, parts))
        return torch.stack(scores, dim=1)

    def _score_layer(self, points: Tensor, parts: dict[str, Tensor]) -> Tensor:
        return squared_distances(points, parts["means"], parts["whitener"]).amin(dim=1)


class RelativeMahalanobis(Mahalanobis):
    """Score = that of `Mahalanobis` less the squared distance from one Gaussian of all training features.

    RM(x) = sum_layers min_c (z - mu_c)^T S^-1 (z - mu_c) - (z - mu_0)^T S_0^-1 (z - mu_0)

    mu_0 and S_0 are mean and covariance of the training features whatever their class. Parameters and errors as in
    `Mahalanobis`.

    References
    ----------
    Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021 (arXiv:2106.09022),
    equations 2 and 3.
    """

    _parts = ("means", "whitener", "background_mean", "background_whitener")

    def _fit_layer(self, points: Tensor, means: Tensor, labels: Tensor) -> dict[str, Tensor]:
        mean = points.mean(dim=0, keepdim=True)
        background = {"background_mean": mean, "background_whitener": whitener(points - mean, self.shrinkage)}
        return super()._fit_layer(points, means, labels) | background

    def _score_layer(self, points: Tensor, parts: dict[str, Tensor]) -> Tensor:
        far = squared_distances(points, parts["background_mean"], parts["background_whitener"])
        return super()._score_layer(points, parts) - far[:, 0]
