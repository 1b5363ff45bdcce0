"""Detectors by name, and as a file holds them: a name out of a list, arguments in their ranges, tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import detection
from detection import Detector
from detection.learner import few
from pdm_lightning.errors import nearest
from pdm_lightning.guard.checks import (
    Check,
    GuardFileError,
    either,
    flag,
    listing,
    maybe,
    number,
    one_of,
    record,
    text,
    whole,
)
from pdm_lightning.models import Classifier, ResNet

CHOICES: dict[str, tuple[type[Detector], dict[str, Any]]] = {
    "kde": (detection.KDE, {}),
    "kde_logits": (detection.KDE, {"layer": "logits"}),
    "kde_unit": (detection.UnitKDE, {}),
    "msp": (detection.MSP, {}),
    "entropy": (detection.NonMaximalEntropy, {}),
    "max_logit": (detection.MaxLogit, {}),
    "energy": (detection.Energy, {}),
    "odin": (detection.ODIN, {}),
    "odin_input": (detection.ODINInput, {}),
    "mahalanobis": (detection.Mahalanobis, {}),
    "relative_mahalanobis": (detection.RelativeMahalanobis, {}),
    "knn": (detection.KNN, {}),
    "dknn": (detection.DkNN, {}),
    "feature_squeezing": (detection.FeatureSqueezing, {}),
    "lid": (detection.LID, {}),
    "mahalanobis_multi": (detection.MahalanobisMulti, {}),
}
"""Names as ``detector=...`` has them, with what they set; the last two are fitted on an attack's images too."""
OF_EVERY_CLASS = (detection.KDE, detection.Mahalanobis, detection.LID)
"""What learns something of each class, and needs images of it; the others do without."""
CLASSES = {kind.__name__: kind for kind, _ in CHOICES.values()}
_POSITIVE = number(0, 1e12, above=True)
_COUNT = whole(1, 10_000_000)
_WINDOW = whole(2, 15)
MOST_SQUEEZED = 2**28
"""Numbers in the windows of one image, all squeezers together: some 10 s on one core."""
ARGUMENTS: dict[str, Check] = {
    "bandwidth": either(one_of(("validation", "loo", "nn_median")), _POSITIVE),
    "kernels_per_class": _COUNT,
    "layer": text(),
    "bandwidth_scale": _POSITIVE,
    "seed": whole(0, 2**63 - 1),
    "k": _COUNT,
    "normalize": flag,
    "layers": listing(text(), 1, 64),
    "temperature": _POSITIVE,
    "eps": number(0, 1, above=True),
    "shrinkage": number(0, 1),
    "reference": _COUNT,
    "bits": maybe(whole(1, 8)),
    "medians": listing(_WINDOW, 0, 4),
    "non_local": maybe(listing(number(1, 31), 3, 3)),
}
_DETECTOR = record(name=one_of(CLASSES), arguments=lambda value, where: value)


def choose(detector: Detector | str | None, classifier: Classifier) -> Detector:
    """Give a detector to fit: itself, one by its name in `CHOICES`, or a KDE.

    Raises
    ------
    ValueError
        For an unknown name, or a detector of a class that no file can name.
    """
    if isinstance(detector, Detector):
        describe(detector)
        return detector
    name = "kde" if detector is None else detector
    if name not in CHOICES:
        raise ValueError(f"unknown detector {name!r}{nearest(name, CHOICES)} ({', '.join(CHOICES)})")
    kind, arguments = CHOICES[name]
    stages = "layers" in inspect.signature(kind).parameters and not _has_stages(classifier)
    # the stages that some detectors read by default are those of this project's ResNet
    return kind(**({"layers": ["embedding"]} if stages else {}), **arguments)


def check_classes(detector: Detector, labels: Tensor, count: int) -> None:
    """Refuse to fit a detector where a class has no image that it needs; ValueError, in one line, then."""
    missing = sorted(set(range(count)) - set(labels.tolist()))
    if missing and isinstance(detector, OF_EVERY_CLASS):
        raise ValueError(
            f"{type(detector).__name__} needs images of each of the classifier's {count} classes to learn from, and "
            f"there are none of class {few(missing)}: give some, or take a detector that does without (knn, dknn, "
            "msp, energy, ...)"
        )


def _has_stages(classifier: Classifier) -> bool:
    return isinstance(getattr(classifier, "backbone", None), ResNet)


def describe(detector: Detector) -> dict[str, Any]:
    """Give name and arguments as JSON holds them; ValueError for a detector of a class that is not in the list."""
    kind = type(detector)
    if CLASSES.get(kind.__name__) is not kind:
        raise ValueError(
            f"a guard holds a detector of {', '.join(CLASSES)}, not {kind.__name__}: code does not fit into a file"
        )
    arguments = {name: _plain(getattr(detector, name)) for name in inspect.signature(kind).parameters}
    _checked(kind, arguments, "detector.arguments")
    return {"name": kind.__name__, "arguments": arguments}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _checked(kind: type[Detector], arguments: Any, where: str) -> dict[str, Any]:
    wanted = {name: ARGUMENTS[name] for name in inspect.signature(kind).parameters}
    told: dict[str, Any] = record(**wanted)(arguments, where)
    return told


def check(value: Any, where: str) -> dict[str, Any]:
    """Check what `describe` gives; `GuardFileError` for anything else."""
    told: dict[str, Any] = _DETECTOR(value, where)
    return {**told, "arguments": _checked(CLASSES[told["name"]], told["arguments"], f"{where}.arguments")}


def check_cost(told: Mapping[str, Any], shape: Sequence[int]) -> None:
    """Refuse windows that are too many, or too large, for images of this shape, (C, H, W).

    Raises
    ------
    GuardFileError
        Where squeezing one image would look at more than `MOST_SQUEEZED` numbers.
    """
    channels, height, width = shape
    arguments = told["arguments"]
    search, patch, _ = arguments.get("non_local") or (0, 0, 0)
    median = channels * sum(window**2 for window in arguments.get("medians", ()))
    # the mean of a patch costs a sixteenth of what sorting its numbers would
    numbers = int(height * width * (median + search**2 * (channels + patch**2 / 16)))
    if numbers > MOST_SQUEEZED:
        raise GuardFileError(
            f"detector: its windows hold {numbers} numbers of an image of {height} x {width} pixels, "
            f"{MOST_SQUEEZED} allowed: smaller windows, or smaller images"
        )


def rebuild(told: Mapping[str, Any], state: Mapping[str, Tensor], classes: int) -> Detector:
    """Make the fitted detector of a checked description and of its tensors.

    Raises
    ------
    GuardFileError
        Where tensors and description do not belong together.
    """
    kind = CLASSES[told["name"]]
    for name, tensor in state.items():
        _check_tensor(name, tensor, classes)
    if issubclass(kind, detection.KDE):
        _check_kernels(state, classes, kind.kernels_are)
    try:
        return kind(**told["arguments"]).load_state_dict(dict(state))
    except (ValueError, KeyError, RuntimeError, IndexError, TypeError) as error:
        raise GuardFileError(f"detector: {error}") from error


def _check_tensor(name: str, tensor: Tensor, classes: int) -> None:
    """Whole numbers are classes, or counts of them; counts in between (of neighbours) are not negative."""
    if tensor.dtype not in (torch.float64, torch.float32, torch.int64):
        raise GuardFileError(f"detector: tensor {name!r} is {tensor.dtype}")
    if not tensor.is_floating_point() and tensor.numel():
        high = classes if name.rpartition(".")[2] in ("classes", "labels") else 2**40
        if not 0 <= int(tensor.min()) <= int(tensor.max()) <= high:
            raise GuardFileError(f"detector: tensor {name!r} has values outside 0..{high}")


def _check_kernels(state: Mapping[str, Tensor], classes: int, name: str) -> None:
    """Kernels of each class, one class after the other, and one bandwidth above 0."""
    if state.keys() != {name, "classes", "bandwidth"}:
        raise GuardFileError(f"detector: it has the tensors {name}, classes and bandwidth")
    kernels, labels, bandwidth = state[name], state["classes"], state["bandwidth"]
    if kernels.dim() != 2 or labels.shape != kernels.shape[:1] or labels.dtype != torch.int64:
        raise GuardFileError("detector: kernels (M, d) need one class each, (M,)")
    if bandwidth.shape != (1,) or not bandwidth.is_floating_point() or not float(bandwidth) > 0:
        raise GuardFileError("detector: the bandwidth must be one number above 0")
    if not kernels.is_floating_point() or bool((labels.diff() < 0).any()):
        raise GuardFileError("detector: kernels must be floats, in the order of their classes")
    if labels.unique_consecutive().tolist() != list(range(classes)):
        raise GuardFileError(f"detector: kernels of each of the {classes} classes needed")
