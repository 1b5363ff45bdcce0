"""Fit and score: what a guard says, worked out a second time, and every wrong request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from detection import KDE, MSP, Mahalanobis
from pdm_lightning.data import ImageData
from pdm_lightning.guard import Guard, GuardFileError, ImageError, Preprocessing, fitting
from pdm_lightning.guard.detectors import CHOICES, OF_EVERY_CLASS
from pdm_lightning.models import Classifier, ResNet

Images = Callable[..., Any]


def test_scores_worked_out_again(guard: Guard, stripes: Images) -> None:
    """Density, softmax, threshold and p-value, each from its definition in NumPy."""
    images, _ = stripes(9, seed=5)
    found = guard.score(images)
    with torch.no_grad():
        z, logits = guard.classifier.embed_and_logits(images.float() / 255)
    z, logits = z.double().numpy(), logits.double().numpy()
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found.predicted.tolist() == softmax.argmax(1).tolist()
    assert np.allclose(found.probability.numpy(), softmax.max(1))
    state = {name: value.numpy() for name, value in guard.detector.state_dict().items()}
    h, d = state["bandwidth"][0], z.shape[1]
    for row, label in enumerate(softmax.argmax(1)):
        kernels = state["kernels"][state["classes"] == label]
        logs = -((kernels - z[row]) ** 2).sum(1) / (2 * h**2) - d / 2 * np.log(2 * np.pi * h**2)
        assert float(found.score[row]) == pytest.approx(-(np.logaddexp.reduce(logs) - np.log(len(kernels))))
    clean = guard.clean_scores.numpy()
    for score, p in zip(found.score.tolist(), found.p_value.tolist(), strict=True):
        assert p == (1 + (clean >= score).sum()) / (len(clean) + 1)
    assert guard.threshold == np.sort(clean)[::-1][10]  # 10 of 100 lie above
    assert found.flagged.tolist() == [score > guard.threshold for score in found.score.tolist()]


def test_what_is_recorded(guard: Guard, stripes: Images) -> None:
    origin = guard.provenance
    assert (origin.train, origin.validation, origin.held_out.n) == (120, 100, 73)
    assert (origin.alarms.hits, origin.alarms.n) == (10, 100)
    assert (origin.data, origin.labels, origin.unreadable) == ("stripes", "given", 0)
    images, labels = stripes(293)
    correct = guard.score(images).predicted == labels
    assert origin.accuracy.n == 173
    assert origin.accuracy.hits <= int(correct.sum())
    assert not guard.classifier.training


def test_rate_on_new_clean_images(guard: Guard, stripes: Images) -> None:
    """Of new clean images about as many are flagged as were allowed: 100 validation scores know 10 % to within 9 %."""
    flagged = guard.score(stripes(1000, seed=9)[0]).flagged
    assert 0.02 < float(flagged.double().mean()) < 0.22


def test_noise_is_flagged(guard: Guard) -> None:
    noise = torch.randint(
        0, 256, (100, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
    )
    assert float(guard.score(noise).flagged.double().mean()) > 0.5


def test_every_form_of_images_gives_one_guard(guard: Guard, classifier: Classifier, stripes: Images) -> None:
    images, labels = stripes(293)
    more: dict[str, Any] = {"fpr": 0.1, "classes": ["a", "b", "c"]}
    same = TensorDataset(images, labels)
    pictures = [(Image.fromarray(x[0].numpy()), int(y)) for x, y in zip(images, labels, strict=True)]
    forms = [
        Guard.fit(classifier, same, **more),
        Guard.fit(classifier, DataLoader(same, 7, shuffle=True), **more),
        Guard.fit(classifier, (images.float() / 255, labels), **more),
        Guard.fit(classifier, pictures, preprocessing=Preprocessing(8, 8, 1), **more),
    ]
    for other in forms:
        assert torch.equal(other.clean_scores, guard.clean_scores)
        assert other.threshold == guard.threshold
    prints = [other.provenance.fingerprint == guard.provenance.fingerprint for other in forms]
    assert prints == [True, True, False, True]  # other bytes, though the same pixels


def test_files_are_scored_as_their_pixels(guard: Guard, folders: Path, stripes: Images) -> None:
    paths = sorted(folders.rglob("*.png"), key=lambda path: path.name)
    assert torch.equal(guard.score(paths).score, guard.score(stripes(293)[0]).score)
    (folders.parent / "not.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"not.png: no image of a known format"):
        guard.score([folders.parent / "not.png"])


def test_predictions_stand_for_labels(classifier: Classifier, stripes: Images) -> None:
    images, _ = stripes(293)
    with torch.no_grad():
        predicted = classifier.predict(images.float() / 255)
    one = Guard.fit(classifier, images, fpr=0.1)
    other = Guard.fit(classifier, (images, predicted), fpr=0.1)
    assert torch.equal(one.clean_scores, other.clean_scores)
    assert (one.provenance.labels, one.provenance.accuracy) == ("predicted", None)
    assert one.classes == ["0", "1", "2"]


def test_an_image_data_set_brings_its_splits(classifier: Classifier, stripes: Images) -> None:
    data = ImageData("x", stripes(60), stripes(100, seed=2), stripes(50, seed=3), ["p", "q", "r"])
    found = Guard.fit(classifier, data, fpr=0.1)
    assert (found.provenance.train, found.provenance.validation, found.provenance.held_out.n) == (60, 100, 50)
    assert found.classes == ["p", "q", "r"]
    flagged = found.score(data.test[0]).flagged
    assert found.provenance.held_out.hits == int(flagged.sum())


def test_validation_images_by_themselves(classifier: Classifier, stripes: Images) -> None:
    found = Guard.fit(classifier, stripes(60), stripes(100, seed=2), fpr=0.1)
    assert (found.provenance.train, found.provenance.validation, found.provenance.held_out) == (60, 100, None)
    found = Guard.fit(classifier, stripes(60), stripes(150, seed=2), fpr=0.1)
    assert (found.provenance.validation, found.provenance.held_out.n) == (100, 50)


def test_detectors_by_object_and_by_name(classifier: Classifier, stripes: Images) -> None:
    one = Guard.fit(classifier, stripes(293), fpr=0.1, detector=Mahalanobis(shrinkage=0.01))
    assert one.detector.shrinkage == 0.01
    assert isinstance(Guard.fit(classifier, stripes(293), fpr=0.1, detector="msp").detector, MSP)
    assert Guard.fit(classifier, stripes(293), fpr=0.1, detector="kde_logits").detector.layer == "logits"


def test_a_detector_that_is_fitted_on_an_attack(classifier: Classifier, stripes: Images) -> None:
    images, labels = stripes(293)
    with pytest.raises(ValueError, match="fitted on an attack's images too: give adversarial="):
        Guard.fit(classifier, (images, labels), fpr=0.1, detector="lid")
    attacked = (
        images[torch.arange(293).roll(1)],
        labels,
    )  # all misclassified, since each has another's image
    found = Guard.fit(
        classifier, (images, labels), fpr=0.1, detector="mahalanobis_multi", adversarial=attacked
    )
    assert len(found.score(images)) == 293


def test_any_network_is_wrapped(stripes: Images) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))
    images, _ = stripes(293)
    found = Guard.fit(network, images, fpr=0.1, classes=3, embedding="2", mean=0.5, std=0.5, detector="msp")
    same = Guard.fit(Classifier.wrap(network, "2", 3, mean=0.5, std=0.5), images, fpr=0.1, detector="msp")
    assert torch.equal(found.score(images).score, same.score(images).score)


def test_a_network_in_float64_is_guarded_as_it_is(stripes: Images, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 3))
    images, _ = stripes(293)
    single = Guard.fit(network, images, fpr=0.1).score(images)
    guard = Guard.fit(network.double(), images, fpr=0.1, architecture="own")
    torch.testing.assert_close(guard.score(images).score, single.score, rtol=1e-3, atol=1e-3)
    again = Guard.load(guard.save(tmp_path / "guard.safetensors"), network)
    assert torch.equal(again.score(images).score, guard.score(images).score)


@pytest.mark.parametrize("detector", ["kde", "energy", "msp"])
def test_a_softmax_in_the_network_changes_nothing(stripes: Images, detector: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 3))
    images, _ = stripes(293)
    bare, soft = (
        Guard.fit(net, images, fpr=0.1, detector=detector).score(images)
        for net in (network, nn.Sequential(*network, nn.Softmax(dim=1)))
    )
    assert torch.equal(bare.probability, soft.probability)
    assert torch.equal(bare.score, soft.score)


def test_another_threshold(guard: Guard, stripes: Images) -> None:
    images, _ = stripes(50, seed=4)
    scores = guard.score(images).score
    assert guard.score(images, threshold=float(scores.median())).flagged.sum() == 25
    assert guard.threshold_at(0.2) == float(guard.clean_scores[79])
    with pytest.raises(ValueError, match=r"a false-positive rate of 0.05 needs 200 clean validation images"):
        guard.threshold_at(0.05)


class _Own(KDE):
    """A detector of somebody's own."""


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"fpr": 0.05}, "293 clean images are too few for a false-positive rate of 0.05: 400 needed"),
    ({"fpr": 0}, "must lie above 0"),
    ({"detector": "kdee"}, "unknown detector 'kdee': did you mean 'kde'"),
    ({"detector": _Own()}, "not _Own: code does not fit into a file"),
    ({"classes": ["a", "b"]}, "2 class names for a classifier of 3 classes"),
    ({"embedding": "x"}, "embedding: belongs to the classifier"),
    ({"architecture": "torchvision/resnett18"}, "torchvision lists no 'resnett18': did you mean 'resnet18'"),
    ({"architecture": "os/system"}, "write torchvision/NAME or timm/NAME"),
]


@pytest.mark.parametrize(("more", "told"), WRONG, ids=[next(iter(more)) + told[:9] for more, told in WRONG])
def test_wrong_requests(more: dict[str, Any], told: str, classifier: Classifier, stripes: Images) -> None:
    with pytest.raises(ValueError, match=told):
        Guard.fit(classifier, stripes(293), **{"fpr": 0.1, **more})


def test_wrong_images(classifier: Classifier, guard: Guard, stripes: Images) -> None:
    images, labels = stripes(293)
    for wrong, told in [
        (images.float(), r"pixels reach 0..249: give uint8, or float in \[0, 1\]"),
        (images.long(), "must be uint8, or float"),
        (images[0], r"must be \(N, C, H, W\)"),
        (images[:0], "N at least 1"),
        ((images, labels[:5]), "293 images need as many labels"),
        ((images, labels + 1), "labels reach 1..3, the classifier has 3 classes"),
        (torch.full((300, 1, 8, 8), torch.nan), "pixels reach nan"),
        (["a.png"], "files need preprocessing"),
        (object(), "object is no set of images"),
        ([], "the data set is empty"),
    ]:
        with pytest.raises(ValueError, match=told):
            Guard.fit(classifier, wrong, fpr=0.1)
    with pytest.raises(ValueError, match=r"images of \(1, 9, 8\): this guard takes \(1, 8, 8\)"):
        guard.score(torch.zeros(2, 1, 9, 8))
    with pytest.raises(ValueError, match="differ in size"):
        Guard.fit(classifier, (images, labels), (torch.zeros(100, 1, 16, 16), labels[:100]), fpr=0.1)
    with pytest.raises(ValueError, match="need labels, all of them or none"):
        Guard.fit(classifier, (images, labels), images[:100], fpr=0.1)


@pytest.mark.parametrize("detector", ["kde", "kde_logits", "kde_unit", "mahalanobis", "relative_mahalanobis"])
def test_classes_without_images(detector: str, stripes: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of very many classes and images of few: said before the work, in a line that can be read."""
    classifier = Classifier(ResNet(8, 1, [4, 4, 8]), 8, 1000)
    told = r"1000 classes .* none of class {} and \d* more: give some, or take .* \(knn, "
    with pytest.raises(
        ValueError, match=told.format(r"[\d, ]*")
    ):  # the classifier's own predictions are known afterwards
        Guard.fit(classifier, stripes(293)[0], fpr=0.1, detector=detector)
    monkeypatch.setattr(fitting, "gather", lambda *_: pytest.fail("read"))
    with pytest.raises(ValueError, match=told.format("3, 4, 5, 6, 7")):
        Guard.fit(classifier, stripes(293), fpr=0.1, detector=detector)


@pytest.mark.parametrize("detector", sorted({*CHOICES} - {"kde", "kde_logits", "kde_unit"}))
def test_detectors_that_need_images_of_every_class(detector: str, stripes: Images) -> None:
    """`OF_EVERY_CLASS` names those, and no other: the others are fitted on images of three of four classes."""
    classifier = Classifier(ResNet(8, 1, [4, 4, 8]), 8, 4)
    kind = CHOICES[detector][0]
    images, labels = stripes(293)
    more = {"adversarial": (images[torch.arange(293).roll(1)], labels)} if kind.needs_attack else {}
    if issubclass(kind, OF_EVERY_CLASS):
        with pytest.raises(ValueError, match="there are none of class 3: give some"):
            Guard.fit(classifier, (images, labels), fpr=0.1, detector=detector, **more)
    else:
        Guard.fit(classifier, (images, labels), fpr=0.1, detector=detector, **more)


def test_broken_weights(stripes: Images) -> None:
    classifier = Classifier(ResNet(8, 1, [4, 4, 8]), 8, 3)
    with torch.no_grad():
        classifier.head.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="logits is not finite on some images"):
        Guard.fit(classifier, stripes(293), fpr=0.1)
    assert issubclass(GuardFileError, ValueError)


def test_the_fingerprint_does_not_know_of_batches(classifier: Classifier, stripes: Images) -> None:
    one, other = (Guard.fit(classifier, stripes(293), fpr=0.1, batch=batch) for batch in (64, 7))
    assert one.provenance.fingerprint == other.provenance.fingerprint


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"validation": 150}, "images are the same: give others, or only train"),
        ({"name": "n" * 201}, "name: at most 200 printable characters"),
        ({"classes": ["a", "b", "c\t"]}, "classes: at most 200 printable characters"),
    ],
)
def test_what_a_file_could_not_hold_or_measure_is_told_before_the_fit(
    classifier: Classifier, stripes: Images, monkeypatch: pytest.MonkeyPatch, change: Any, told: str
) -> None:
    given: dict[str, Any] = {"fpr": 0.1, **change}
    if "validation" in change:
        given["validation"] = stripes(150)
    monkeypatch.setattr(KDE, "fit", lambda *_: pytest.fail("fitted before"))
    with pytest.raises(ValueError, match=told):
        Guard.fit(classifier, stripes(150), **given)
