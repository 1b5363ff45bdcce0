"""What every detector of conf/detector keeps to, on a small network and images of bars."""

from __future__ import annotations

import inspect
import math
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load, save
from torch import Tensor, nn

import detection
from detection import Detector, Features, View, auc

torch.set_num_threads(1)

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "detector").glob("*.yaml"))
STAGES = ("backbone.stage1", "backbone.stage2", "backbone.stage3")
CLASSES = 4


class Network(nn.Module):
    """Three convolutions whose names are those of a ResNet's stages."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        for stage, (before, after) in enumerate([(1, 6), (6, 8), (8, 8)], start=1):
            self.backbone.add_module(f"stage{stage}", nn.Conv2d(before, after, 3, padding=1))
        self.flat, self.head = nn.Linear(8 * 16, 6), nn.Linear(6, CLASSES)

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for stage in ("stage1", "stage2", "stage3"):
            x = nn.functional.softplus(self.backbone.get_submodule(stage)(x), beta=5)
        z = self.flat(nn.functional.avg_pool2d(x, 2).flatten(1))
        return z, self.head(z)


def bars(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A bright bar in the row of the class, on noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    images = 0.25 * torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    for c in range(CLASSES):
        images[labels == c, :, 2 * c : 2 * c + 2] += 0.7
    return images, labels


def mixed(images: Tensor, labels: Tensor) -> Tensor:
    """The attack: less than half of an image, and more of one of the next class."""
    other = torch.cat([images[labels == (c + 1) % CLASSES] for c in range(CLASSES)])
    own = torch.cat([images[labels == c] for c in range(CLASSES)])
    order = torch.cat([(labels == c).nonzero().flatten() for c in range(CLASSES)])
    return (0.4 * own + 0.6 * other)[order.argsort()]


@cache
def network() -> Network:
    torch.manual_seed(0)
    model, (images, labels) = Network().double(), bars(160, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.embed_and_logits(images)[1], labels, label_smoothing=0.1).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def features(images: Tensor, labels: Tensor) -> Features:
    model = network()
    with torch.no_grad():
        view = View.from_model(model, images, STAGES)
        layers = {name: view.layer(name) for name in STAGES}
        return Features(view.embeddings, view.logits, labels, layers, images, model)


@cache
def sets() -> dict[str, Features]:
    found = {
        name: features(*bars(n, s))
        for name, n, s in [("train", 240, 1), ("validation", 80, 2), ("test", 60, 3)]
    }
    attacked = {}
    for name, source in found.items():
        attacked[f"{name}_adversarial"] = features(mixed(source.images, source.labels), source.labels)
    return found | attacked


@cache
def config(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base=None):
        return OmegaConf.to_container(compose(f"detector/{name}"), resolve=True)["detector"]


def new(name: str) -> Detector:
    options = {k: v for k, v in config(name).items() if k not in ("name", "label", "attack", "_target_")}
    return getattr(detection, config(name)["_target_"].removeprefix("detection."))(**options)


def fit(detector: Detector, **changed: Features) -> Detector:
    known = sets() | changed
    return detector.fit(
        known["train"], known["validation"], known["train_adversarial"] if detector.needs_attack else None
    )


@lru_cache
def fitted(name: str) -> Detector:
    return fit(new(name))


def images_view(detector: Detector, x: Tensor) -> View:
    return View.from_model(network(), x, detector.reads)


every = pytest.mark.parametrize("name", NAMES)


def of(condition: Any) -> Any:
    return pytest.mark.parametrize("name", [name for name in NAMES if condition(new(name))])


def test_the_network_is_right_and_the_attack_fools_it() -> None:
    for name in ("train", "test"):
        clean, attacked = sets()[name], sets()[f"{name}_adversarial"]
        assert (clean.predicted == clean.labels).double().mean() > 0.97
        assert (attacked.predicted != attacked.labels).double().mean() > 0.8


@every
def test_yaml_names_every_option_and_the_default(name: str) -> None:
    options = dict(config(name))
    assert options.pop("name") == name and options.pop("label")
    kind = getattr(detection, options.pop("_target_").removeprefix("detection."))
    assert ("attack" in options) == kind.needs_attack
    options.pop("attack", None)
    assert set(options) == set(inspect.signature(kind).parameters)
    if name not in ("feature_squeezing_cifar10", "kde_logits"):
        assert repr(kind(**options)) == repr(kind())
    assert all(f"{option}=" in repr(kind(**options)) for option in options)


def test_every_detector_has_a_yaml() -> None:
    kinds = {
        name
        for name in detection.__all__
        if inspect.isclass(kind := getattr(detection, name))
        and issubclass(kind, Detector)
        and kind is not Detector
    }
    assert {config(name)["_target_"].removeprefix("detection.") for name in NAMES} == kinds


@pytest.mark.parametrize("name", ["lid", "mahalanobis_multi"])
def test_the_label_names_the_attack(name: str) -> None:
    assert config(name)["label"].endswith("fitted on FGSM-0.1")


@every
def test_adversarial_images_score_higher(name: str) -> None:
    scores = [fitted(name).score(sets()[part].view()) for part in ("test_adversarial", "test")]
    fooled = sets()["test_adversarial"].predicted != sets()["test"].labels
    assert auc(scores[1], scores[0][fooled]) > 0.65  # chance is 0.5, give or take 0.05


@every
def test_scores_are_finite_float64_and_repeatable(name: str) -> None:
    for part in ("train", "test", "test_adversarial"):
        found = sets()[part]
        scores = fitted(name).score(found.view())
        assert scores.dtype == torch.float64 and scores.shape == (len(found),)
        assert torch.isfinite(scores).all() and not scores.requires_grad
        assert torch.equal(scores, fitted(name).score(found.view()))
    assert torch.equal(fit(new(name)).score(found.view()), scores)


@every
def test_a_row_scores_alone_as_in_its_batch(name: str) -> None:
    test = sets()["test_adversarial"]
    alone = torch.cat([fitted(name).score(view) for view in test.views(1)])
    torch.testing.assert_close(alone, fitted(name).score(test.view()), rtol=1e-9, atol=1e-9)


@every
def test_empty_batch(name: str) -> None:
    assert fitted(name).score(sets()["test"].view(slice(0, 0))).shape == (0,)


@every
def test_single_precision_is_scored_in_double(name: str) -> None:
    if new(name).needs_images:
        return
    test = sets()["test"]
    layers = {n: layer.float() for n, layer in test.layers.items()}
    single = View.from_features(test.embeddings.float(), test.logits.float(), layers)
    scores = fitted(name).score(single)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, fitted(name).score(test.view()), rtol=1e-2, atol=1e-3)


@every
def test_state_travels_through_safetensors(name: str) -> None:
    state = load(save(fitted(name).state_dict()))
    loaded = new(name).load_state_dict(state)
    view = sets()["test_adversarial"].view()
    assert torch.equal(loaded.score(view), fitted(name).score(view))
    again = loaded.state_dict()
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)


@every
def test_foreign_state_is_refused_in_one_line(name: str) -> None:
    for other in NAMES:
        if type(new(other)) is not type(new(name)):
            with pytest.raises(ValueError, match=r"this is no .*state") as caught:
                new(name).load_state_dict(fitted(other).state_dict())
            assert "\n" not in str(caught.value)


@of(lambda d: hasattr(d, "layers"))
def test_state_of_other_layers_is_refused(name: str) -> None:
    other = fitted(name)
    renamed = type(other)(layers=["logits"])
    with pytest.raises(ValueError, match="this is no state"):
        renamed.load_state_dict(other.state_dict())


@of(lambda d: d.differentiable)
def test_the_gradient_is_the_slope(name: str) -> None:
    detector, x = fitted(name), sets()["test_adversarial"].images[:6].clone().requires_grad_(True)
    with torch.enable_grad():
        scores = detector.score(images_view(detector, x))
        (gradient,) = torch.autograd.grad(scores.sum(), x)
    slopes = gradient.flatten(1).norm(dim=1)
    assert torch.isfinite(gradient).all() and (slopes > 0).all()
    step = 1e-6 * gradient / slopes[:, None, None, None]
    with torch.no_grad():
        up, down = (detector.score(images_view(detector, x + sign * step)) for sign in (1, -1))
    torch.testing.assert_close((up - down) / 2e-6, slopes, rtol=2e-3, atol=1e-7)


@of(lambda d: d.differentiable)
def test_gradient_at_a_training_image_is_finite(name: str) -> None:
    detector, train = fitted(name), sets()["train"]
    leaves = [
        t[:9].clone().requires_grad_(True) for t in (train.embeddings, train.logits, *train.layers.values())
    ]
    view = View.from_features(leaves[0], leaves[1], dict(zip(train.layers, leaves[2:], strict=True)))
    gradients = torch.autograd.grad(detector.score(view).sum(), leaves, allow_unused=True)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@of(lambda d: not d.differentiable)
def test_no_gradient_is_promised_and_none_given(name: str) -> None:
    detector, x = fitted(name), sets()["test"].images[:4].clone().requires_grad_(True)
    view = images_view(detector, x)
    assert not detector.score(view).requires_grad
    # an attack goes on with the same view, whose logits must still have their gradient
    assert view.logits.requires_grad


@every
def test_nothing_that_is_shown_changes(name: str) -> None:
    detector, known, model = new(name), sets(), network()
    before = {key: [t.clone() for t in _tensors(found)] for key, found in known.items()}
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    fit(detector).score(known["test"].view())
    for key, found in known.items():
        assert all(torch.equal(a, b) for a, b in zip(before[key], _tensors(found), strict=True))
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules()) and not model.training


def _tensors(found: Features) -> list[Tensor]:
    return [found.embeddings, found.logits, found.labels, found.images, *found.layers.values()]


@every
def test_only_what_is_named_is_read(name: str) -> None:
    detector, test = fitted(name), sets()["test"]
    if detector.needs_images:
        return
    odd = {n: t if n in detector.reads else t * math.nan for n, t in _by_name(test).items()}
    view = View.from_features(odd.pop("embedding"), odd.pop("logits"), odd)
    assert torch.equal(detector.score(view), detector.score(test.view()))


def _by_name(found: Features) -> dict[str, Tensor]:
    return {"embedding": found.embeddings, "logits": found.logits, **found.layers}


@every
def test_the_predicted_class_is_the_class_scored(name: str) -> None:
    test = sets()["test_adversarial"]
    as_predicted = fitted(name).score_as(test.view(), test.predicted)
    torch.testing.assert_close(as_predicted, fitted(name).score(test.view()), rtol=0, atol=0)


@every
def test_unfitted_says_so(name: str) -> None:
    for ask in (lambda d: d.score(sets()["test"].view()), lambda d: d.state_dict()):
        with pytest.raises(RuntimeError, match="call fit"):
            ask(new(name))


@every
def test_another_model_is_refused(name: str) -> None:
    other = View.from_features(torch.zeros(2, 3), torch.zeros(2, 9), {n: torch.zeros(2, 3) for n in STAGES})
    with pytest.raises(ValueError) as caught:
        fitted(name).score(other)
    assert "\n" not in str(caught.value)


@every
def test_what_is_not_finite_is_refused(name: str) -> None:
    test = sets()["test"]
    broken = {n: t.clone() for n, t in _by_name(test).items()}
    for tensor in broken.values():
        tensor[3, 1] = math.nan
    view = View(test.images, test.model, (broken.pop("embedding"), broken.pop("logits")), broken)
    if name == "odin_input":
        return  # it looks at other images alone
    with pytest.raises(ValueError, match=r"1 of 60 scored .* not finite"):
        fitted(name).score(view)


@of(lambda d: d.needs_attack)
def test_an_attack_is_needed(name: str) -> None:
    known = sets()
    with pytest.raises(ValueError, match=r"fitted on an attack.*detector\.attack"):
        new(name).fit(known["train"], known["validation"])
    with pytest.raises(ValueError, match="fools the classifier on 0 of 60 training images, 10 needed"):
        new(name).fit(known["train"], known["validation"], known["test"])


@of(lambda d: d.needs_attack)
def test_validation_images_are_left_for_the_threshold(name: str) -> None:
    state = fit(new(name), validation=sets()["test_adversarial"]).state_dict()
    assert all(torch.equal(state[key], value) for key, value in fitted(name).state_dict().items())


@of(lambda d: d.needs_attack)
def test_failed_attacks_are_not_learnt_from(name: str) -> None:
    known = sets()
    right = known["validation"].predicted == known["validation"].labels
    failed = features(known["validation"].images[right], known["validation"].labels[right])
    both = _joined(known["train_adversarial"], failed)
    state = fit(new(name), train_adversarial=both).state_dict()
    assert all(torch.equal(state[key], value) for key, value in fitted(name).state_dict().items())


def _joined(a: Features, b: Features) -> Features:
    layers = {n: torch.cat([a.layers[n], b.layers[n]]) for n in a.layers}
    parts = [torch.cat([getattr(a, n), getattr(b, n)]) for n in ("embeddings", "logits", "labels")]
    return Features(*parts, layers)


@of(lambda d: d.needs_images)
def test_images_are_needed(name: str) -> None:
    test = sets()["test"]
    with pytest.raises(ValueError, match=r"build it with View\.from_model"):
        fitted(name).score(View.from_features(test.embeddings, test.logits))
