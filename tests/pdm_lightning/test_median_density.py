"""What an attacker takes for the median density of a class: half of fresh clean images lie above it."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn
from typing_extensions import Self

from detection import KDE, Detector, Features, View
from pdm_lightning.threat import Watch, WatchedTarget

torch.set_num_threads(1)

DIM, CLASSES = 12, 2
PER_CLASS = 1000
# standard error of a share of 1,000 fresh points plus that of the median of 1,000 others: 0.022; three of them
TOLERANCE = 0.067


class Gaussian(Detector):
    """Knows the density: a standard normal around 3c in every coordinate of class c."""

    differentiable = True

    def fit(self, train: Features, validation: Features) -> Self:
        return self

    def score(self, view: View) -> Tensor:
        return self.score_as(view, view.predicted)

    def score_as(self, view: View, classes: Tensor) -> Tensor:
        return 0.5 * (view.embeddings.double() - 3 * classes[:, None]).square().sum(dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> Self:
        return self


def draw(seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    embeddings = torch.randn(len(labels), DIM, generator=generator) + 3 * labels[:, None]
    return Features(embeddings, nn.functional.one_hot(labels, CLASSES).float(), labels)


def medians(detector: Detector, limits: str = "validation") -> Tensor:
    train, validation = draw(0), draw(1)
    watch = Watch(detector.fit(train, validation), train, validation, limits=limits)
    return WatchedTarget(nn.Linear(1, 1), watch).limits(0.5)


def share_above(detector: Detector, limit: Tensor) -> Tensor:
    """Per class the share of fresh points in a denser place than the limit: a lower score."""
    fresh = draw(2)
    scores = detector.score_as(View.from_features(fresh.embeddings, fresh.logits), fresh.labels)
    return (scores < limit[fresh.labels]).double().view(CLASSES, PER_CLASS).mean(dim=1)


def test_known_density() -> None:
    detector = Gaussian()
    limit = medians(detector)
    # twice the score is chi-square distributed; its sample median has standard error 1 / (2 sqrt(n) density)
    middle = chi2.ppf(0.5, DIM)
    error = 0.5 / (2 * PER_CLASS**0.5 * chi2.pdf(middle, DIM))
    assert limit.tolist() == pytest.approx([middle / 2] * CLASSES, abs=3 * error)
    assert share_above(detector, limit).tolist() == pytest.approx([0.5] * CLASSES, abs=TOLERANCE)


@pytest.mark.parametrize("limits", ["validation", "loo"])
def test_kernel_density(limits: str) -> None:
    detector = KDE()
    limit = medians(detector, limits)
    assert share_above(detector, limit).tolist() == pytest.approx([0.5] * CLASSES, abs=TOLERANCE)


def test_training_points_scored_by_themselves_would_inflate_the_median() -> None:
    detector, train = KDE(), draw(0)
    medians(detector)
    own = detector.score_as(View.from_features(train.embeddings, train.logits), train.labels)
    limit = own.view(CLASSES, PER_CLASS).quantile(0.5, dim=1)
    assert (share_above(detector, limit) < 0.5 - 2 * TOLERANCE).all()
