"""Fitting a guard: features of clean images, detector, threshold, and the rate that new clean images get."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from detection import Detector
from pdm_lightning import __version__
from pdm_lightning.data import ImageData
from pdm_lightning.guard import detectors
from pdm_lightning.guard.architecture import Architecture, network_of
from pdm_lightning.guard.gather import Gathered, gather, halves, scores, share_out
from pdm_lightning.guard.preprocessing import Preprocessing
from pdm_lightning.guard.provenance import Provenance
from pdm_lightning.guard.rates import Rate, alarm_threshold
from pdm_lightning.guard.source import source_of
from pdm_lightning.models import Classifier
from pdm_lightning.progress import Progress


@dataclass(frozen=True)
class Parts:
    """Where the images of each purpose are: features of the detector, threshold, and what nothing is fitted on."""

    train: tuple[Gathered, Tensor]
    validation: tuple[Gathered, Tensor]
    held_out: tuple[Gathered, Tensor] | None


@dataclass(frozen=True)
class Reader:
    """How sources are passed through the classifier."""

    classifier: Classifier
    layers: Sequence[str]
    device: torch.device
    batch: int
    preprocessing: Preprocessing | None
    progress: bool

    def __call__(self, images: Any, what: str) -> Gathered:
        """Pass one source through the classifier; `what` stands in front of the progress."""
        source = source_of(images, self.preprocessing)
        with Progress(len(source), what, enabled=self.progress) as progress:
            return gather(self.classifier, source, self.layers, self.device, self.batch, progress.update)


@dataclass(frozen=True)
class Fitted:
    """What fitting gives beside the detector itself."""

    clean_scores: Tensor
    threshold: float
    preprocessing: Preprocessing
    provenance: Provenance


def as_classifier(module: nn.Module, **settings: Any) -> Classifier:
    """Take a classifier as it is, and wrap any other network; settings as in `Classifier.wrap`.

    Raises
    ------
    ValueError
        For settings of a classifier that has its own, and as `Classifier.wrap`.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if isinstance(module, Classifier):
        if given:
            raise ValueError(f"{', '.join(given)}: belongs to the classifier, which is wrapped already")
        return module.eval()
    return Classifier.wrap(module, **given).eval()


def check_labels(detector: Detector, read: Reader, train: Any) -> None:
    """Check before the work that the images, where their labels are known, are of all classes that are needed."""
    labels = getattr(source_of(train, read.preprocessing), "labels", None)
    count = read.classifier.num_classes
    if labels is not None and {*torch.as_tensor(labels).tolist()} <= {*range(count)}:
        detectors.check_classes(detector, torch.as_tensor(labels), count)


def split(read: Reader, train: Any, validation: Any, held_out: Any, *, fpr: float, seed: int) -> Parts:
    """Read all images, and say which are for what; see `Guard.fit`."""
    whole = read(train, "clean images")
    if validation is None:
        kernels, inner, out = share_out(whole.classes, fpr, seed)
        parts = Parts((whole, kernels), (whole, inner), (whole, out))
    else:
        other = read(validation, "validation images")
        inner, out = halves(len(other), fpr, seed) if held_out is None else (torch.arange(len(other)), _NONE)
        parts = Parts((whole, torch.arange(len(whole))), (other, inner), (other, out) if len(out) else None)
    if held_out is not None:
        last = read(held_out, "held-out images")
        parts = Parts(parts.train, parts.validation, (last, torch.arange(len(last))))
    _check(parts)
    return parts


_NONE = torch.zeros(0, dtype=torch.int64)


def _check(parts: Parts) -> None:
    found = [part[0] for part in (parts.train, parts.validation, parts.held_out) if part is not None]
    if len({gathered.shape for gathered in found}) > 1:
        raise ValueError("train, validation and held-out images differ in size: resize them to one")
    if len({gathered.labels is None for gathered in found}) > 1:
        raise ValueError("train, validation and held-out images need labels, all of them or none")
    distinct = _distinct(parts)
    if len({gathered.fingerprint for gathered in distinct}) < len(distinct):
        raise ValueError("train, validation or held-out images are the same: give others, or only train")


def learn(
    detector: Detector, read: Reader, parts: Parts, adversarial: Any, *, fpr: float, seed: int, name: str
) -> Fitted:
    """Fit the detector, freeze the threshold, and measure the rate on what nothing was fitted on."""
    if detector.needs_attack and adversarial is None:
        raise ValueError(
            f"{type(detector).__name__} is fitted on an attack's images too: give adversarial=(images, labels), or "
            "choose another detector"
        )
    detectors.check_cost(detectors.describe(detector), parts.train[0].shape)
    kept = parts.train[0].classes[parts.train[1]]
    detectors.check_classes(detector, kept, read.classifier.num_classes)
    extra = None
    if adversarial is not None:
        seen = read(adversarial, "adversarial images")
        extra = seen.features(torch.arange(len(seen)))
    (whole, kernels), (other, inner) = parts.train, parts.validation
    detector.fit(whole.features(kernels), other.features(inner), extra)

    def score(part: tuple[Gathered, Tensor]) -> Tensor:
        return scores(detector, read.classifier, *part, read.device, read.batch)

    clean = score(parts.validation).sort().values
    threshold = alarm_threshold(clean, fpr)
    held = None if parts.held_out is None else score(parts.held_out)
    provenance = Provenance(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=versions(),
        data=name,
        fingerprint=_fingerprint(_distinct(parts)),
        labels="predicted" if whole.labels is None else "given",
        train=len(kernels),
        validation=len(clean),
        unreadable=sum(len({path for path, _ in g.source.failed}) for g in _distinct(parts)),
        seed=seed,
        alarms=Rate(int((clean > threshold).sum()), len(clean)),
        held_out=None if held is None else Rate(int((held > threshold).sum()), len(held)),
        accuracy=_accuracy([parts.validation, *([parts.held_out] if parts.held_out else [])]),
    )
    channels, height, width = whole.shape
    return Fitted(clean, threshold, read.preprocessing or Preprocessing(height, width, channels), provenance)


def _fingerprint(found: Sequence[Gathered]) -> str:
    """Fingerprint of one source, or of several, one after the other."""
    told = [gathered.fingerprint for gathered in found]
    return told[0] if len(told) == 1 else hashlib.sha256("".join(told).encode()).hexdigest()


def _distinct(parts: Parts) -> list[Gathered]:
    found = [part[0] for part in (parts.train, parts.validation, parts.held_out) if part is not None]
    return list({id(gathered): gathered for gathered in found}.values())


def _accuracy(parts: Sequence[tuple[Gathered, Tensor]]) -> Rate | None:
    if any(gathered.labels is None for gathered, _ in parts):
        return None
    return Rate(sum(g.correct(places) for g, places in parts), sum(len(places) for _, places in parts))


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries of networks that are installed."""
    found = {"pdm-lightning": __version__, "torch": str(torch.__version__)}
    for name in ("torchvision", "timm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def class_names(classes: Sequence[str] | int | None, classifier: Classifier) -> list[str]:
    """Names of the classes, their numbers where there are none; ValueError where there are too many or too few."""
    count = classifier.num_classes
    if classes is None or isinstance(classes, int):
        return [str(number) for number in range(count)]
    if len(classes) != count:
        raise ValueError(f"{len(classes)} class names for a classifier of {count} classes")
    return [str(name) for name in classes]


def unpack(train: Any, validation: Any, held_out: Any) -> tuple[Any, Any, Any]:
    """Take an `ImageData` apart: its validation and test images, where no others are given."""
    if not isinstance(train, ImageData):
        return train, validation, held_out
    return (
        train.train,
        train.validation if validation is None else validation,
        train.test if held_out is None and validation is None else held_out,
    )


Recognise = Callable[[Classifier, int], Architecture]


def architecture_of(
    given: Architecture | str | None, classifier: Classifier, channels: int, find: Recognise
) -> Architecture:
    """The architecture that is given, or the one that is found."""
    if isinstance(given, Architecture):
        return given
    if given in (None, "own"):
        return Architecture("own", "") if given == "own" else find(classifier, channels)
    return Architecture.named(str(given), classifier.num_classes, channels, network_of(classifier))
