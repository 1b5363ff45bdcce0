"""A guard as one file, and back: every claim of the file is held against the others before it is believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from detection import Detector
from pdm_lightning.guard import detectors
from pdm_lightning.guard.architecture import shapes
from pdm_lightning.guard.checks import GuardFileError
from pdm_lightning.guard.container import MAX_BYTES, Container, write
from pdm_lightning.guard.document import Document, Form
from pdm_lightning.guard.guard import Guard
from pdm_lightning.guard.header import DTYPES, Spec
from pdm_lightning.guard.rates import alarm_threshold
from pdm_lightning.models import Classifier, pretrained

_CLASSIFIER, _DETECTOR, _SCORES = "classifier.", "detector.", "clean_scores"
_BROKEN = (
    ValueError,
    RuntimeError,
    IndexError,
    KeyError,
    TypeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
)
"""What networks and detectors raise on values that do not belong together."""


def save(guard: Guard, path: Path) -> Path:
    """Write a guard; see `Guard.save`."""
    classifier = guard.classifier
    document = Document(
        guard.classes,
        guard.network,
        Form.of(classifier),
        guard.preprocessing,
        classifier.mean.flatten().tolist(),
        classifier.std.flatten().tolist(),
        detectors.describe(guard.detector),
        guard.threshold,
        guard.fpr,
        guard.provenance,
    )
    if guard.network.source != "own":
        _check_rebuilt(document, classifier)
    tensors = {f"{_CLASSIFIER}{name}": value for name, value in classifier.state_dict().items()}
    tensors |= {f"{_DETECTOR}{name}": value for name, value in guard.detector.state_dict().items()}
    write(path, document.dumps(), {**tensors, _SCORES: guard.clean_scores})
    return path


@torch.no_grad()
def _check_rebuilt(document: Document, classifier: Classifier) -> None:
    """Build the classifier as a reader of the file will, and compare what both say of an image."""
    name = f"{document.network.source}/{document.network.name}"
    mend = f"architecture={name!r} does not rebuild this classifier: name another, or 'own'"
    try:
        twin = document.build(document.network.build()).eval()
        twin.load_state_dict(classifier.state_dict())
    except RuntimeError as error:
        raise ValueError(mend) from error
    noise = torch.rand(1, *document.preprocessing.shape, generator=torch.Generator().manual_seed(0))
    own = [part.cpu() for part in classifier.embed_and_logits(noise.to(classifier.mean.device))]
    pairs = zip(own, twin.embed_and_logits(noise), strict=True)
    if not all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs):
        raise ValueError(mend)


def load(path: Path, model: nn.Module | None, max_bytes: int) -> Guard:
    """Read a guard; see `Guard.load`."""
    with Container(path, max_bytes) as file, naming(path):
        document = Document.loads(file.document)
        classifier = _classifier(document, model, file.specs)
        return _guard(document, classifier, file.tensors())


def read(path: Path, max_bytes: int = MAX_BYTES) -> Document:
    """Read what a file says of itself, all of it checked but the classifier, which is not built.

    Raises
    ------
    GuardFileError
        For a file that is no guard, or damaged.
    """
    with Container(path, max_bytes) as file, naming(path):
        document = Document.loads(file.document)
        _detector(document, file.tensors())
        return document


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path in front of what is wrong with a file."""
    try:
        yield
    except GuardFileError as error:
        told = str(error)
        raise GuardFileError(told if told.startswith(f"{path}: ") else f"{path}: {told}") from error


def _classifier(document: Document, model: nn.Module | None, specs: Mapping[str, Spec]) -> Classifier:
    """Build the classifier, once the header has told that the weights are those of such a one."""
    claimed = {
        name.removeprefix(_CLASSIFIER): (spec.shape, DTYPES[spec.dtype])
        for name, spec in specs.items()
        if name.startswith(_CLASSIFIER)
    }
    head = (len(document.classes), document.form.embedding_dim)
    if document.form.kind == "backbone" and claimed.get("head.weight", ((),))[0] != head:
        raise GuardFileError(f"classifier: tensor 'head.weight' is not {head}")
    if model is None:
        skeleton = document.network.on_meta()
        if skeleton is not None:
            _compare(claimed, document.build(skeleton))
        model = document.network.build()
    if isinstance(model, Classifier):
        if (model.num_classes, model.readout) != (len(document.classes), document.form.readout):
            raise GuardFileError(
                "model= is a classifier of other classes, or of another readout, than the file's"
            )
        classifier = model
    else:
        try:
            classifier = document.build(model)
        except ValueError as error:
            raise GuardFileError(f"classifier: {error}") from error
    _compare(claimed, classifier)
    return classifier.eval()


def _compare(claimed: Mapping[str, tuple[tuple[int, ...], torch.dtype]], classifier: Classifier) -> None:
    wanted = shapes(classifier)
    odd = sorted(wanted.keys() ^ claimed.keys())
    if odd:
        where = "missing" if odd[0] in wanted else "unknown"
        raise GuardFileError(
            f"classifier: tensor {odd[0]!r} is {where}: these are weights of another network"
        )
    for name, found in claimed.items():
        if found != wanted[name]:
            shape, dtype = wanted[name]
            raise GuardFileError(f"classifier: tensor {name!r} is {found[0]} {found[1]}, not {shape} {dtype}")


def _detector(document: Document, tensors: Mapping[str, Tensor]) -> Detector:
    """Rebuild the detector, once the names of all tensors are known and the clean scores give the threshold."""
    odd = [name for name in tensors if name != _SCORES and not name.startswith((_CLASSIFIER, _DETECTOR))]
    if odd or _SCORES not in tensors:
        raise GuardFileError(f"tensor {odd[0]!r} is unknown" if odd else f"tensor {_SCORES!r} is missing")
    _check_scores(document, tensors[_SCORES])
    state = {n.removeprefix(_DETECTOR): t for n, t in tensors.items() if n.startswith(_DETECTOR)}
    return detectors.rebuild(document.detector, state, len(document.classes))


def _guard(document: Document, classifier: Classifier, tensors: Mapping[str, Tensor]) -> Guard:
    detector = _detector(document, tensors)
    weights = {n.removeprefix(_CLASSIFIER): t for n, t in tensors.items() if n.startswith(_CLASSIFIER)}
    classifier.load_state_dict(pretrained.versioned(classifier, weights))
    guard = Guard(
        classifier,
        detector,
        document.threshold,
        document.fpr,
        document.classes,
        document.preprocessing,
        tensors[_SCORES],
        document.provenance,
        document.network,
    )
    try:
        found = guard.score(torch.full((1, *document.preprocessing.shape), 0.5))
    except _BROKEN as error:
        told = " ".join(str(error).split())[:200]
        raise GuardFileError(f"its parts do not work together: {told or type(error).__name__}") from error
    if not bool(torch.isfinite(found.score).all()) or not bool(torch.isfinite(found.probability).all()):
        raise GuardFileError("its parts do not work together: the score of a grey image is not finite")
    return guard


def _check_scores(document: Document, clean: Tensor) -> None:
    """The threshold is the one that these clean scores give."""
    if clean.dim() != 1 or clean.dtype != torch.float64 or bool((clean.diff() < 0).any()):
        raise GuardFileError(f"tensor {_SCORES!r} must be float64 and ascending")
    if len(clean) != document.provenance.validation or document.provenance.alarms.n != len(clean):
        raise GuardFileError(
            "guard.provenance: another number of validation images than there are clean scores"
        )
    try:
        limit = alarm_threshold(clean, document.fpr)
    except ValueError as error:
        raise GuardFileError(f"guard.threshold: {error}") from error
    if limit != document.threshold:
        raise GuardFileError(
            "guard.threshold: its value is not the one that the clean scores give at its rate"
        )
