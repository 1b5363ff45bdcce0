"""What every detector of conf/detector keeps to, on a small network and images of bars."""

from __future__ import annotations

import inspect
import math
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

import detection
from detection import Detector, View, auc

PARTS = runpy.run_path(str(Path(__file__).with_name("bars_network.py")))
(
    NAMES,
    STAGES,
    network,
    features,
    sets,
    config,
    new,
    fit,
    fitted,
    images_view,
    every,
    of,
    _tensors,
    _by_name,
    _joined,
) = (
    PARTS[name]
    for name in (
        "NAMES",
        "STAGES",
        "network",
        "features",
        "sets",
        "config",
        "new",
        "fit",
        "fitted",
        "images_view",
        "every",
        "of",
        "_tensors",
        "_by_name",
        "_joined",
    )
)


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


@every
def test_only_what_is_named_is_read(name: str) -> None:
    detector, test = fitted(name), sets()["test"]
    if detector.needs_images:
        return
    odd = {n: t if n in detector.reads else t * math.nan for n, t in _by_name(test).items()}
    view = View.from_features(odd.pop("embedding"), odd.pop("logits"), odd)
    assert torch.equal(detector.score(view), detector.score(test.view()))


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


@of(lambda d: d.needs_images)
def test_images_are_needed(name: str) -> None:
    test = sets()["test"]
    with pytest.raises(ValueError, match=r"build it with View\.from_model"):
        fitted(name).score(View.from_features(test.embeddings, test.logits))
