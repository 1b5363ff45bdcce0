"""Mahalanobis distances against scikit-learn and pytorch-ood, and the regression over layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_ood.detector import RMD
from pytorch_ood.detector import Mahalanobis as Reference
from sklearn.covariance import EmpiricalCovariance, ShrunkCovariance
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from detection import Features, Mahalanobis, MahalanobisMulti, RelativeMahalanobis, View
from detection.mahalanobis import squared_distances
from detection.regression import logistic, weighted

torch.set_num_threads(1)

MIX = torch.randn(6, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def make(n: int = 120, seed: int = 0, shift: float = 0.0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    points = torch.randn(n, 6, generator=generator, dtype=torch.float64) @ MIX + 4 * labels[:, None] + shift
    other = torch.randn(n, 4, generator=generator, dtype=torch.float64) + labels[:, None] + 0.2 * shift
    return Features(points, torch.nn.functional.one_hot(labels, 3).double(), labels, {"body": other})


def centred(points: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    means = np.stack([points[labels == c].numpy().mean(axis=0) for c in range(3)])
    return points.numpy() - means[labels.numpy()], means


def sklearn_distances(train: Features, points: Tensor, layer: str, shrinkage: float) -> np.ndarray:
    rest, means = centred(train.layer(layer), train.labels)
    tied = ShrunkCovariance(assume_centered=True, shrinkage=shrinkage).fit(rest)
    return np.stack([tied.mahalanobis(points.numpy() - mean) for mean in means], axis=1)


@pytest.mark.parametrize("shrinkage", [0.0, 1e-6, 0.3, 1.0])
def test_equals_scikit_learn(shrinkage: float) -> None:
    train, test = make(), make(seed=1)
    expected = sklearn_distances(train, test.embeddings, "embedding", shrinkage).min(axis=1)
    scores = Mahalanobis(shrinkage=shrinkage).fit(train, test).score(test.view())
    torch.testing.assert_close(scores, torch.from_numpy(expected), rtol=1e-8, atol=1e-8)


def test_equals_pytorch_ood_but_for_its_scale() -> None:
    train, test = make(), make(seed=1)
    reference = Reference(None).fit_features(train.embeddings.float(), train.labels)
    # half the distance, of a covariance that is not divided by N
    expected = 2 * len(train) * reference.predict_features(test.embeddings.float()).double()
    scores = Mahalanobis(shrinkage=0).fit(train, test).score(test.view())
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)


def test_relative_equals_pytorch_ood_but_for_its_scale() -> None:
    train, test = make(), make(seed=1)
    reference = RMD(None).fit_features(train.embeddings.float(), train.labels)
    expected = len(train) * reference.predict_features(test.embeddings.float()).double()
    scores = RelativeMahalanobis(shrinkage=0).fit(train, test).score(test.view())
    torch.testing.assert_close(scores, expected, rtol=1e-2, atol=5e-3)


def test_relative_equals_scikit_learn() -> None:
    train, test = make(), make(seed=1)
    near = sklearn_distances(train, test.embeddings, "embedding", 0).min(axis=1)
    far = EmpiricalCovariance().fit(train.embeddings.numpy()).mahalanobis(test.embeddings.numpy())
    scores = RelativeMahalanobis(shrinkage=0).fit(train, test).score(test.view())
    torch.testing.assert_close(scores, torch.from_numpy(near - far), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", [Mahalanobis, RelativeMahalanobis])
def test_layers_are_added_up(kind: type) -> None:
    train, test = make(), make(seed=1)
    parts = [kind([layer]).fit(train, test).score(test.view()) for layer in ("embedding", "body")]
    both = kind(["embedding", "body"]).fit(train, test)
    assert both.reads == ("embedding", "body")
    torch.testing.assert_close(both.score(test.view()), parts[0] + parts[1])


def test_offset_far_from_the_origin_costs_no_precision() -> None:
    points, means = make().embeddings, make(n=3).embeddings
    near = squared_distances(points, means, torch.eye(6, dtype=torch.float64))
    far = squared_distances(points + 1e5, means + 1e5, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(near, torch.cdist(points, means) ** 2, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(far, near, rtol=1e-6, atol=1e-6)


def test_a_linear_map_of_the_layer_changes_nothing() -> None:
    train, test = make(), make(seed=1)
    mapped = [Features(f.embeddings @ MIX.T + 7, f.logits, f.labels) for f in (train, test)]
    before = Mahalanobis(shrinkage=0).fit(train, test).score(test.view())
    torch.testing.assert_close(Mahalanobis(shrinkage=0).fit(*mapped).score(mapped[1].view()), before)


def test_a_unit_that_never_fires() -> None:
    train = make()
    dead = Features(torch.cat([train.embeddings, torch.zeros(120, 1)], 1), train.logits, train.labels)
    assert torch.isfinite(Mahalanobis().fit(dead, dead).score(dead.view())).all()
    with pytest.raises(ValueError, match=r"no inverse: raise detector\.shrinkage"):
        Mahalanobis(shrinkage=0).fit(dead, dead)
    twice = Features(torch.cat([train.embeddings, train.embeddings], 1), train.logits, train.labels)
    with pytest.raises(ValueError, match="no inverse"):
        Mahalanobis(shrinkage=0).fit(twice, twice)


def test_class_without_training_images_is_refused() -> None:
    train = make()
    keep = train.labels != 1
    with pytest.raises(ValueError, match="no training images of class 1"):
        Mahalanobis().fit(Features(train.embeddings[keep], train.logits[keep], train.labels[keep]), train)


@pytest.mark.parametrize(
    "wrong",
    [{"shrinkage": -0.1}, {"shrinkage": 2}, {"layers": []}, {"layers": "embedding"}, {"layers": ["a", "a"]}],
)
def test_hyper_parameters_are_checked(wrong: dict) -> None:
    for kind in (Mahalanobis, RelativeMahalanobis, MahalanobisMulti):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            kind(**wrong)


def attacked(seed: int = 5, n: int = 120) -> Features:
    found = make(n, seed, shift=2.0)
    logits = found.logits.roll(1, dims=1)
    logits[:20] = found.logits[:20]  # the attack fails on the first
    return Features(found.embeddings, logits, found.labels, found.layers)


def test_multi_equals_scikit_learn_on_its_own_distances() -> None:
    train, adversarial, layers = make(), attacked(), ["embedding", "body"]
    known = [
        np.stack([sklearn_distances(train, f.layer(n), n, 1e-6).min(axis=1) for n in layers], axis=1)
        for f in (train, adversarial, make(seed=1))
    ]
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    model.fit(np.concatenate([known[0], known[1][20:]]), [0] * 120 + [1] * 100)
    scores = MahalanobisMulti(layers).fit(train, train, adversarial).score(make(seed=1).view())
    # StandardScaler divides by N and not by N - 1
    torch.testing.assert_close(
        scores, torch.from_numpy(model.decision_function(known[2])), rtol=1e-2, atol=1e-2
    )


def test_regression_on_scores_of_any_scale() -> None:
    generator = torch.Generator().manual_seed(2)
    clean = torch.randn(80, 3, generator=generator, dtype=torch.float64)
    bad = clean[:50] + torch.tensor([1.5, 0.0, -1.0])
    scale, offset = torch.tensor([1e6, 1.0, 1e-4]).double(), torch.tensor([1e7, 0.0, 3.0]).double()
    plain = weighted(bad, **logistic(clean, bad))
    scaled = weighted(bad * scale + offset, **logistic(clean * scale + offset, bad * scale + offset))
    torch.testing.assert_close(scaled, plain, rtol=1e-4, atol=1e-4)
    fitted = logistic(clean, bad)["weights"]
    assert fitted[0] > 0.5 and fitted[2] < -0.3


def test_a_constant_score_has_no_weight() -> None:
    clean, bad = torch.zeros(20, 2).double(), torch.zeros(20, 2).double()
    clean[:, 0], bad[:, 0] = torch.linspace(0, 1, 20), torch.linspace(1, 2, 20)
    found = logistic(clean, bad)
    assert found["weights"][1] == 0 and torch.isfinite(torch.cat(list(found.values()))).all()


def test_view_of_single_precision_has_its_gradient_in_single_precision() -> None:
    train = make()
    leaf = train.embeddings[:4].float().requires_grad_(True)
    score = Mahalanobis().fit(train, train).score(View.from_features(leaf, train.logits[:4]))
    (gradient,) = torch.autograd.grad(score.sum(), leaf)
    assert score.dtype == torch.float64 and gradient.dtype == torch.float32
