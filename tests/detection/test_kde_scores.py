"""The density detector's other scores: as a given class, leave-one-out, at a scaled bandwidth."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import KernelDensity
from torch import Tensor
from typing_extensions import Self

from detection import KDE, Detector, Features, View
from detection import density as density_module
from detection.bandwidth import leave_one_out

torch.set_num_threads(1)


def make(n: int = 60, dim: int = 4, classes: int = 3, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    embeddings = torch.randn(n, dim, generator=generator) + 3 * labels[:, None]
    return Features(embeddings, torch.nn.functional.one_hot(labels, classes).float(), labels)


class Plain(Detector):
    """Has only what a detector must have."""

    differentiable = True

    def fit(self, train: Features, validation: Features) -> Self:
        return self

    def score(self, view: View) -> Tensor:
        return view.embeddings[:, 0].double()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> Self:
        return self


def view_of(features: Features) -> View:
    return View.from_features(features.embeddings, features.logits)


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_score_as_a_class_equals_scikit_learn(asked: int) -> None:
    train, test = make(), make(seed=1)
    detector = KDE(bandwidth=0.7).fit(train, test)
    scores = detector.score_as(view_of(test), torch.full((60,), asked))
    reference = KernelDensity(bandwidth=0.7).fit(train.embeddings[train.labels == asked].double().numpy())
    expected = -reference.score_samples(test.embeddings.double().numpy())
    torch.testing.assert_close(scores, torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_score_is_score_as_the_predicted_class() -> None:
    train, test = make(), make(seed=1)
    detector = KDE(bandwidth=0.7).fit(train, test)
    assert torch.equal(detector.score(view_of(test)), detector.score_as(view_of(test), test.predicted))


def test_score_as_passes_the_gradient_back() -> None:
    train = make()
    detector = KDE(bandwidth=0.8).fit(train, train)
    points = make(n=6, seed=2).embeddings.double().requires_grad_(True)
    classes = torch.tensor([0, 1, 2, 2, 1, 0])
    assert torch.autograd.gradcheck(
        lambda z: detector.score_as(View.from_features(z, train.logits[:6]), classes), points
    )


@pytest.mark.parametrize("rule", ["validation", "loo", "nn_median", 0.4])
def test_bandwidth_scale_multiplies_every_rule(rule: str | float) -> None:
    train, validation = make(), make(seed=1)
    plain = KDE(bandwidth=rule).fit(train, validation)
    half = KDE(bandwidth=rule, bandwidth_scale=0.5).fit(train, validation)
    assert half.bandwidth_ == 0.5 * plain.bandwidth_
    by_number = KDE(bandwidth=0.5 * plain.bandwidth_).fit(train, validation)
    assert torch.equal(half.score(view_of(validation)), by_number.score(view_of(validation)))
    # a stored state holds the bandwidth in use, which is not scaled a second time
    assert KDE(bandwidth_scale=0.5).load_state_dict(half.state_dict()).bandwidth_ == half.bandwidth_


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_bandwidth_scale_is_checked(scale: float) -> None:
    with pytest.raises(ValueError, match="bandwidth_scale must be a number above 0"):
        KDE(bandwidth_scale=scale)


@pytest.mark.parametrize("bandwidth", [0.05, 0.7, 20.0])
def test_leave_one_out_equals_scikit_learn(bandwidth: float) -> None:
    detector = KDE(bandwidth=bandwidth).fit(make(), make(seed=1))
    state, scores = detector.state_dict(), detector.leave_one_out_scores()
    assert len(scores) == 3
    for c, got in enumerate(scores):
        points = state["kernels"][state["classes"] == c].numpy()
        assert got.dtype == torch.float64 and len(got) == len(points) == 20
        for i in range(len(points)):
            others = KernelDensity(bandwidth=bandwidth).fit(points[[j for j in range(20) if j != i]])
            assert got[i].item() == pytest.approx(-others.score_samples(points[i : i + 1])[0], rel=1e-6)


def test_leave_one_out_scores_are_what_the_rule_loo_maximises() -> None:
    detector = KDE(bandwidth="loo").fit(make(), make(seed=1))
    state = detector.state_dict()
    assert detector.bandwidth_ == leave_one_out([state["kernels"][state["classes"] == c] for c in range(3)])

    def mean(factor: float) -> float:
        scaled = KDE(bandwidth=factor * detector.bandwidth_).load_state_dict(
            state | {"bandwidth": factor * state["bandwidth"]}
        )
        return float(torch.cat(scaled.leave_one_out_scores()).mean())

    assert mean(1.0) < min(mean(0.97), mean(1.03))


def test_leave_one_out_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = KDE(bandwidth=0.7).fit(make(), make(seed=1))
    whole = detector.leave_one_out_scores()
    monkeypatch.setattr(density_module, "BLOCK", 60)  # three rows of twenty a block
    blocks = detector.leave_one_out_scores()
    for a, b in zip(whole, blocks, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_point_left_out_scores_higher_than_one_that_is_in() -> None:
    train = make()
    detector = KDE(bandwidth=0.7).fit(train, train)
    within = detector.score_as(view_of(train), train.labels)
    for c, left_out in enumerate(detector.leave_one_out_scores()):
        assert (left_out > within[train.labels == c]).all()


def test_leave_one_out_needs_two_kernels_a_class() -> None:
    with pytest.raises(ValueError, match=r"class 1, 2 has one kernel, .* raise kernels_per_class"):
        KDE(bandwidth=1.0).fit(make(n=4), make()).leave_one_out_scores()
    with pytest.raises(RuntimeError, match="call fit"):
        KDE().leave_one_out_scores()


def test_any_detector_scores_as_ever_and_says_that_it_cannot_leave_out() -> None:
    features = make()
    assert torch.equal(
        Plain().score_as(view_of(features), features.labels), features.embeddings[:, 0].double()
    )
    with pytest.raises(ValueError, match=r"Plain has no leave-one-out scores: use craft\.limits=validation"):
        Plain().leave_one_out_scores()
