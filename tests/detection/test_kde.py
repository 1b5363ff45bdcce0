from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from sklearn.neighbors import KernelDensity
from torch import Tensor

import detection
from detection import KDE, Features, View
from detection import density as density_module

torch.set_num_threads(1)


def make(n: int = 90, dim: int = 5, classes: int = 3, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    embeddings = torch.randn(n, dim, generator=generator) + 3 * labels[:, None]
    logits = torch.nn.functional.one_hot(labels, classes).float()
    return Features(embeddings, logits, labels)


def one_hot(classes: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(classes, count).double()


@pytest.mark.parametrize("bandwidth", [0.05, 0.7, 20.0])
def test_equals_scikit_learn(bandwidth: float) -> None:
    train, test = make(), make(seed=1)
    detector = KDE(bandwidth=bandwidth).fit(train, test)
    predicted = (test.labels + 1) % 3  # the predicted class counts, not the true one
    scores = detector.score(View.from_features(test.embeddings, one_hot(predicted, 3)))
    for c in range(3):
        reference = KernelDensity(bandwidth=bandwidth).fit(
            train.embeddings[train.labels == c].double().numpy()
        )
        expected = -reference.score_samples(test.embeddings[predicted == c].double().numpy())
        assert scores.dtype == torch.float64
        torch.testing.assert_close(scores[predicted == c], torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_one_kernel_is_a_gaussian() -> None:
    train = Features(torch.tensor([[1.0, 2.0], [9.0, 9.0]]), torch.eye(2), torch.tensor([0, 1]))
    detector = KDE(bandwidth=0.5).fit(train, train)
    score = detector.score(View.from_features(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 0.0]])))
    # -log N(z; k, h^2 I) with ||z - k|| = 1, h = 1/2, d = 2
    assert score.item() == pytest.approx(1 / (2 * 0.25) + math.log(2 * math.pi * 0.25), abs=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = make(), make(seed=1)
    detector = KDE(bandwidth=0.7).fit(train, test)
    whole = detector.score(View.from_features(test.embeddings, test.logits))
    monkeypatch.setattr(density_module, "BLOCK", 64)  # two rows a block
    blocks = detector.score(View.from_features(test.embeddings, test.logits))
    torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-12)


def test_offset_far_from_the_origin_costs_no_precision() -> None:
    points = make(dim=8).embeddings.double()
    classes = torch.zeros(30, dtype=torch.int64)
    near = density_module.Densities([points[30:]], 0.1)(points[:30], classes)
    far = density_module.Densities([points[30:] + 1e5], 0.1)(points[:30] + 1e5, classes)
    torch.testing.assert_close(far, near, rtol=1e-6, atol=1e-6)


def test_gradient_is_the_derivative() -> None:
    detector = KDE(bandwidth=0.8).fit(make(), make(seed=1))
    points = make(n=6, seed=2).embeddings.double().requires_grad_(True)
    classes = torch.tensor([0, 1, 2, 2, 1, 0])
    assert torch.autograd.gradcheck(lambda z: detector.log_density(z, classes), points)


def test_gradient_on_a_kernel_is_finite() -> None:
    train = make()
    detector = KDE(bandwidth=0.8).fit(train, train)
    points = train.embeddings.clone().requires_grad_(True)
    detector.score(View.from_features(points, train.logits)).sum().backward()
    assert torch.isfinite(points.grad).all()


@pytest.mark.parametrize("distance", [50, 1e4])
def test_gradient_survives_far_from_every_kernel(distance: float) -> None:
    train, h = make(), 0.25
    detector = KDE(bandwidth=h).fit(train, train)
    point = train.embeddings[train.labels == 0].mean(0, keepdim=True).clone()
    point[0, 0] -= distance * h
    point.requires_grad_(True)
    score = detector.score(View.from_features(point, torch.tensor([[1.0, 0.0, 0.0]])))
    (gradient,) = torch.autograd.grad(score.sum(), point)
    assert torch.isfinite(score).all() and torch.isfinite(gradient).all()
    assert gradient.dtype == torch.float32
    # one Gaussian's slope is distance / h^2 and points away from the kernels
    assert gradient[0, 0].item() < -0.5 * (distance * h - 3) / h**2


def test_kernels_are_a_seeded_draw_by_true_label() -> None:
    train = make(n=300)
    draw = KDE(bandwidth=1.0, kernels_per_class=20, seed=4).fit(train, train).state_dict()
    again = KDE(bandwidth=1.0, kernels_per_class=20, seed=4).fit(train, train).state_dict()
    other = KDE(bandwidth=1.0, kernels_per_class=20, seed=5).fit(train, train).state_dict()
    assert draw["kernels"].shape == (60, 5) and draw["classes"].bincount().tolist() == [20, 20, 20]
    assert torch.equal(draw["kernels"], again["kernels"])
    assert not torch.equal(draw["kernels"], other["kernels"])
    rows = (draw["kernels"][:, None] == train.embeddings.double()).all(-1)
    assert (rows.sum(1) == 1).all() and (rows.sum(0) <= 1).all()  # training points, none twice
    assert torch.equal(train.labels[rows.double().argmax(1)], draw["classes"])


def test_small_class_gives_all_it_has() -> None:
    counts = KDE(bandwidth=1.0).fit(make(n=7), make()).state_dict()["classes"].bincount()
    assert counts.tolist() == [3, 2, 2]


def test_layer_logits() -> None:
    train = make()
    detector = KDE(bandwidth=0.5, layer="logits").fit(train, train)
    reference = KernelDensity(bandwidth=0.5).fit(train.logits[train.labels == 0].double().numpy())
    expected = -reference.score_samples(train.logits[:1].double().numpy())
    score = detector.score(View.from_features(train.embeddings, train.logits))[0]
    assert score.item() == pytest.approx(expected[0], abs=1e-6)


def test_state_travels_through_safetensors(tmp_path: Path) -> None:
    train, test = make(n=91), make(seed=1)
    detector = KDE(bandwidth="validation").fit(train, test)
    save_file(detector.state_dict(), tmp_path / "kde.safetensors")
    loaded = KDE().load_state_dict(load_file(tmp_path / "kde.safetensors"))
    view = View.from_features(test.embeddings, test.logits)
    assert loaded.bandwidth_ == detector.bandwidth_
    assert torch.equal(loaded.score(view), detector.score(view))


def test_a_new_fit_or_state_replaces_what_queries_use() -> None:
    train, other = make(), make(seed=3)
    view = View.from_features(train.embeddings, train.logits)
    detector = KDE(bandwidth=0.7).fit(train, train)
    first = detector.score(view)
    second = detector.fit(other, other).score(view)
    assert torch.equal(second, KDE(bandwidth=0.7).fit(other, other).score(view))
    assert not torch.allclose(first, second)
    wider = KDE(bandwidth=1.4).fit(train, train)
    assert torch.equal(detector.load_state_dict(wider.state_dict()).score(view), wider.score(view))
    assert set(detector.state_dict()) == {"kernels", "classes", "bandwidth"}


def test_empty_batch() -> None:
    detector = KDE(bandwidth=1.0).fit(make(), make())
    assert detector.score(View.from_features(torch.zeros(0, 5), torch.zeros(0, 3))).shape == (0,)


def test_class_without_kernels_is_refused() -> None:
    train = make()
    keep = train.labels != 1
    with pytest.raises(ValueError, match="KDE: no training images of class 1"):
        KDE().fit(Features(train.embeddings[keep], train.logits[keep], train.labels[keep]), train)


@pytest.mark.parametrize("where", ["training", "validation", "scored"])
def test_embeddings_that_are_not_finite_are_refused(where: str) -> None:
    train, validation, test = make(), make(seed=1), make(seed=2)
    {"training": train, "validation": validation, "scored": test}[where].embeddings[3, 1] = math.inf
    with pytest.raises(ValueError, match=f"1 of 90 {where} embeddings are not finite"):
        KDE().fit(train, validation).score(View.from_features(test.embeddings, test.logits))


def test_misuse_is_refused_in_one_line() -> None:
    train = make()
    with pytest.raises(RuntimeError, match="call fit"):
        KDE().score(View.from_features(train.embeddings, train.logits))
    with pytest.raises(RuntimeError, match="call fit"):
        KDE().state_dict()
    detector = KDE(bandwidth=1.0).fit(train, train)
    with pytest.raises(ValueError, match=r"points must be \(N, 5\)"):
        detector.score(View.from_features(torch.zeros(2, 4), torch.zeros(2, 3)))
    with pytest.raises(ValueError, match=r"classes must lie in 0\.\.2"):
        detector.log_density(torch.zeros(1, 5), torch.tensor([3]))
    with pytest.raises(ValueError, match="bandwidth absent"):
        KDE().load_state_dict({"kernels": torch.zeros(1, 1), "classes": torch.zeros(1).long()})
    with pytest.raises(ValueError, match="different models"):
        KDE().fit(train, make(dim=4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"bandwidth": "scott"},
        {"bandwidth": 0},
        {"bandwidth": -1.0},
        {"bandwidth": math.inf},
        {"bandwidth": True},
        {"kernels_per_class": 0},
        {"layer": ""},
        {"seed": -1},
    ],
)
def test_hyper_parameters_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KDE(**wrong)


def test_yaml_builds_the_default_detector() -> None:
    options = yaml.safe_load((Path(__file__).parents[2] / "conf/detector/kde.yaml").read_text())
    assert (options.pop("name"), options.pop("label")) == ("kde", "KDE")
    room, name = options.pop("_target_").split(".")
    assert room == "detection" and getattr(detection, name) is KDE
    assert set(options) == set(inspect.signature(KDE).parameters)
    assert repr(KDE(**options)) == repr(KDE())
