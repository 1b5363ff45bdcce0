"""What a file says: each lie is refused, by a file whose checksum is right."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detection import FeatureSqueezing
from pdm_lightning.guard import Guard, GuardFileError, container, files, header
from pdm_lightning.guard.checks import maybe, number, one_of, text
from pdm_lightning.guard.document import Document
from pdm_lightning.models import Classifier
from tests.integration.mutants import Parts

RNG = random.Random(0)
HUGE = 10**400
DOCUMENT: list[tuple[str, Any, str]] = [
    ("schema", 2, "this version reads schema 1: update pdm-lightning"),
    ("schema", 0, "this version reads schema 1: fit it again"),
    ("schema", "1", "fit it again"),
    ("kind", "other", "guard.kind: pdm-lightning guard needed, not 'other'"),
    ("more", 1, "guard: key 'more' is unknown"),
    ("classes", ["a"], "guard.classes: a list of 2 to 100000 values needed, not 1"),
    ("classes", ["a", "b", "\x1b[2J"], r"guard.classes\[2\]: at most 200 printable characters"),
    ("classes", ["a", "b"], "tensor 'head.weight' is not"),
    ("classes", "abc", "guard.classes: a list"),
    ("classifier.network.source", "os", "resnet, torchvision, timm, own needed, not 'os'"),
    ("classifier.network.arguments._target_", "os.system", "key '_target_' is unknown"),
    (
        "classifier.network.arguments.depth",
        9,
        "architecture resnet/resnet8 cannot be built: depth 9 is not 6n",
    ),
    ("classifier.network.arguments.depth", 10**6, "a whole number from 8 to 1202 needed, not 1000000"),
    ("classifier.network.arguments.depth", 14, "these are weights of another network"),
    ("classifier.network.arguments.widths", [4, 4, 9], "embedding_dim is not the network's"),
    (
        "classifier.network.arguments.widths",
        [4, 5, 8],
        r"stage2.0.bn1.bias' is \(4,\) torch.float32, not \(5,\)",
    ),
    ("classifier.network.arguments.in_channels", 3, "the network takes another number of channels"),
    ("classifier.network.arguments.leak", math.nan, "guard: NaN is no JSON"),
    ("classifier.network.arguments.preact", 1, "true or false needed, not 1"),
    ("classifier.network.name", "x" * 201, "at most 200 printable characters"),
    ("classifier.kind", "wrapped", "a backbone, and only a backbone, has an embedding_dim"),
    ("classifier.embedding_dim", 9, "embedding_dim is not the network's"),
    ("classifier.embedding_dim", 10**7, "a whole number from 0 to 1000000 needed"),
    ("classifier.readout", "sideways", "direct, reverse needed"),
    ("classifier.negate", True, "negate is for a wrapped network with a reverse readout"),
    ("preprocessing.height", 10**5, "a whole number from 1 to 1024 needed"),
    ("preprocessing.height", 4, "its parts do not work together: images of shape"),
    ("preprocessing.channels", 2, "the network takes another number of channels"),
    ("preprocessing.resize", "../x", "stretch, crop needed"),
    ("preprocessing.mean", [0.5, 0.5], "mean and std need one value, or one a channel"),
    ("preprocessing.std", [0.0], r"a number above 0 to 1e\+06 needed, not 0.0"),
    ("preprocessing.std", [HUGE], "not a huge number"),
    ("detector.name", "Detector", "KDE, MSP, .* needed, not 'Detector'"),
    ("detector.name", "KNN", "key 'bandwidth' is unknown"),
    ("detector.arguments.kernels_per_class", True, "a whole number from 1 to 10000000 needed, not True"),
    ("detector.arguments.layer", "backbone.nothing", "unknown layer|has no layer"),
    ("detector.arguments.layer", "backbone.stage1", "points must be"),
    ("detector.arguments.bandwidth", "median", "a number above 0"),
    ("threshold.value", 0.0, "its value is not the one that the clean scores give at its rate"),
    ("threshold.value", True, "a number from -inf to inf needed, not True"),
    ("threshold.fpr", 0.05, "a false-positive rate of 0.05 needs 200 clean validation images, there are 100"),
    ("threshold.fpr", 0.9, "a number above 0 to 0.5 needed"),
    ("threshold", {"value": 1.0}, "key 'fpr' is missing"),
    ("threshold", [], r"guard.threshold: an object needed, not a list of 0"),
    ("provenance.validation", 99, "another number of validation images than there are clean scores"),
    ("provenance.labels", "guessed", "given, predicted needed"),
    ("provenance.held_out", {"hits": 5, "n": 2}, "more hits than images"),
    ("provenance.versions", {"evil": "1"}, "key 'evil' is unknown"),
    ("provenance.created", "x\ny", "printable"),
]


@pytest.mark.parametrize(
    ("place", "value", "told"), DOCUMENT, ids=[f"{p}={str(v)[:12]!r}" for p, v, _ in DOCUMENT]
)
def test_documents(place: str, value: Any, told: str, file: Path) -> None:
    parts = Parts(file.read_bytes())
    *above, key = place.split(".")
    inner = parts.document
    for name in above:
        inner = inner[name]
    inner[key] = value
    file.write_bytes(parts.join(RNG))
    with pytest.raises(GuardFileError, match=told) as caught:
        Guard.load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("medians", "non_local", "told"),
    [
        ([15, 15], None, "471859200"),
        ([8, 15], None, "303038464"),
        ([], [31, 3, 1.0], "1574502400"),
        ([], [5, 31, 1.0], "1600"),
    ],
)
def test_windows_are_bounded_before_anything_is_squeezed(
    medians: list[int],
    non_local: list[float] | None,
    told: str,
    classifier: Classifier,
    stripes: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sides of an image and those of windows are in their ranges, and together they would cost minutes."""
    small = Guard.fit(classifier, stripes(293), fpr=0.1, detector=FeatureSqueezing(None, [3], [3, 3, 1.0]))
    parts = Parts(small.save(tmp_path / "guard.safetensors").read_bytes())
    parts.document["preprocessing"].update(height=1024, width=1024)
    parts.document["detector"]["arguments"].update(medians=medians, non_local=non_local)
    (tmp_path / "guard.safetensors").write_bytes(parts.join(RNG))
    monkeypatch.setattr(Guard, "score", lambda *_: pytest.fail("scored"))
    with pytest.raises(
        GuardFileError, match=rf"its windows hold {told}\d* numbers of an image of 1024 x 1024"
    ):
        Guard.load(tmp_path / "guard.safetensors")


def test_windows_are_bounded_before_anything_is_fitted(classifier: Classifier) -> None:
    images = torch.rand(80, 1, 300, 300)
    with pytest.raises(ValueError, match=r"smaller windows, or smaller images"):
        Guard.fit(classifier, images, fpr=0.25, detector=FeatureSqueezing(None, [], [31, 31, 1.0]))


def test_the_mutants_checksum_is_the_right_one(file: Path, guard: Guard) -> None:
    """The tests above would prove nothing if their files were refused for their sums."""
    file.write_bytes(Parts(file.read_bytes()).join(RNG))
    assert Guard.load(file).threshold == guard.threshold


def _nan(parts: Parts, name: str) -> None:
    begin, _ = parts.span(name)
    width = {"F64": "<d", "F32": "<f"}[parts.header[name]["dtype"]]
    struct.pack_into(width, parts.buffer, begin, math.nan)


def _whole(parts: Parts, name: str, value: int) -> None:
    struct.pack_into("<q", parts.buffer, parts.span(name)[0], value)


def _swap_scores(parts: Parts) -> None:
    begin, end = parts.span("clean_scores")
    parts.buffer[begin:end] = parts.buffer[end - 8 : end] + parts.buffer[begin : end - 8]


def _entry(parts: Parts, **changes: Any) -> None:
    parts.header["clean_scores"].update(changes)


def _empty(parts: Parts, shape: list[int]) -> None:
    parts.header["detector.more"] = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}


EDITS: list[tuple[Callable[[Parts], Any], str]] = [
    (lambda p: _nan(p, "classifier.head.weight"), "tensor 'classifier.head.weight' has values that are not finite"),
    (lambda p: _nan(p, "detector.kernels"), "tensor 'detector.kernels' has values that are not finite"),
    (lambda p: _whole(p, "detector.classes", 2**62), "tensor 'classes' has values outside 0..3"),
    (lambda p: _whole(p, "detector.classes", -1), "tensor 'classes' has values outside 0..3"),
    (lambda p: _whole(p, "detector.classes", 2), "in the order of their classes"),
    (lambda p: struct.pack_into("<d", p.buffer, p.span("detector.bandwidth")[0], -1.0), "bandwidth must be one number"),
    (_swap_scores, "must be float64 and ascending"),
    (lambda p: p.header.update(extra=p.header.pop("clean_scores")), "tensor 'extra' is unknown"),
    (lambda p: _entry(p, shape=[2**40]), "its shape and its place in the file do not belong together"),
    (lambda p: _empty(p, [0, 2**47, 2**47]), "tensor 'detector.more': the sides of its shape are too long"),
    (lambda p: _empty(p, [2**47, 2**47, 0]), "tensor 'detector.more': the sides of its shape are too long"),
    (lambda p: _empty(p, [0, 2**40]), "it has the tensors kernels, classes and bandwidth"),
    (lambda p: _entry(p, shape=[2**60]), "at most 8 whole numbers"),
    (lambda p: _entry(p, shape=[-1]), "at most 8 whole numbers"),
    (lambda p: _entry(p, shape=[1] * 9), "at most 8 whole numbers"),
    (lambda p: _entry(p, dtype="F8_E4M3"), "dtype: F64, F32, .* needed"),
    (lambda p: _entry(p, data_offsets=[0]), "two offsets needed"),
    (lambda p: _entry(p, more=1), "key 'more' is unknown"),
    (lambda p: p.header.update(twin=dict(p.header["clean_scores"])), "overlaps another one, or leaves a gap"),
    (lambda p: p.buffer.extend(b"\0" * 8), "the tensors take .* bytes and the file has"),
    (lambda p: p.header.pop("clean_scores"), "overlaps another one, or leaves a gap|the tensors take"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "told"), EDITS)
def test_tensors(edit: Callable[[Parts], Any], told: str, file: Path) -> None:
    parts = Parts(file.read_bytes())
    edit(parts)
    file.write_bytes(parts.join(RNG))
    for read in (Guard.load, files.read):  # the second one is what `pdml card` does
        with pytest.raises(GuardFileError, match=told):
            read(file)


def test_nothing_is_allocated_for_a_file_that_lies(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the header shows is refused before a tensor is read, and before the network has memory of its own."""
    parts = Parts(file.read_bytes())
    parts.document["classifier"]["network"]["arguments"]["widths"] = [4, 4096, 4096]
    parts.document["classifier"]["embedding_dim"] = 4096
    parts.header["classifier.head.weight"]["shape"] = [3, 4096]
    file.write_bytes(parts.join(RNG))
    monkeypatch.setattr(container.Container, "tensors", lambda self: pytest.fail("read"))
    with pytest.raises(GuardFileError, match="do not belong together"):
        Guard.load(file)
    parts.header["classifier.head.weight"]["shape"] = [3, 8]
    file.write_bytes(parts.join(RNG))
    with pytest.raises(GuardFileError, match=r"tensor 'head\.weight' is not"):
        Guard.load(file)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("[" * 200_000, "this is no JSON"),
        ('{"a": 1, "a": 2}', "a key stands there twice"),
        ('{"a": Infinity}', "Infinity is no JSON"),
        (b"\xff{}", "this is no JSON"),
        ("{", "this is no JSON"),
        ("1" * 5000, "this is no JSON"),
    ],
)
def test_strict_json(raw: str | bytes, told: str) -> None:
    with pytest.raises(GuardFileError, match=told):
        header.parse_json(raw, "here")


def test_too_many_tensors() -> None:
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    assert len(header.read_specs({str(n): entry for n in range(20_000)}, 0)) == 20_000
    with pytest.raises(GuardFileError, match="20001 tensors, 20000 allowed"):
        header.read_specs({str(n): entry for n in range(20_001)}, 0)


def test_a_document_is_read_as_it_was_written(file: Path) -> None:
    told = Parts(file.read_bytes()).metadata["guard"]
    assert Document.loads(told).dumps() == told


def test_finite() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert container.finite(torch.tensor([torch.finfo(dtype).max, -1], dtype=dtype))
        for odd in (math.nan, math.inf, -math.inf):
            assert not container.finite(torch.tensor([0.0, odd, 1.0], dtype=dtype))
    assert container.finite(torch.empty(0)) and container.finite(torch.tensor([1]))


def test_single_checks() -> None:
    assert maybe(text())(None, "x") is None
    assert number(0, 1)(1, "x") == 1.0
    with pytest.raises(GuardFileError, match="x: an entry of the list needed, not 3"):
        one_of(range(2), "an entry of the list")(3, "x")
