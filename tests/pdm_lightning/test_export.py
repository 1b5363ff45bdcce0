"""Classifier and detector as one graph, in onnxruntime and as a torch.export program: held to the detector's score."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pdm_lightning
from detection import (
    KDE,
    KNN,
    MSP,
    ODIN,
    Detector,
    Energy,
    Features,
    Mahalanobis,
    MaxLogit,
    NonMaximalEntropy,
    RelativeMahalanobis,
    UnitKDE,
    View,
)
from pdm_lightning import export
from pdm_lightning.export import OUTPUTS, export_onnx, export_program
from pdm_lightning.models import Classifier

torch.set_num_threads(1)

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="pip install -e '.[export]'")
SHAPE, CLASSES = (3, 8, 8), 4
DETECTORS: dict[str, Detector] = {
    "kde": KDE(0.3),
    "kde_near": KDE(5e-4),  # log densities of -1000 and below
    "kde_few": KDE("loo", kernels_per_class=7),
    "kde_logits": KDE(0.5, layer="logits"),
    "kde_layer": KDE(0.5, layer="module.3"),
    "kde_unit": UnitKDE(0.2, kernels_per_class=9),
    "knn": KNN(5),
    "knn_plain": KNN(3, normalize=False),
    "mahalanobis": Mahalanobis(["embedding", "module.3"], shrinkage=0.1),
    "relative": RelativeMahalanobis(shrinkage=0.1),
    "msp": MSP(),
    "max_logit": MaxLogit(),
    "energy": Energy(2.0),
    "entropy": NonMaximalEntropy(),
    "odin": ODIN(),
}


@cache
def classifier(readout: str = "direct") -> Classifier:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    ]
    net = nn.Sequential(*layers, nn.Linear(32, 6), nn.ReLU(), nn.Linear(6, CLASSES))
    with torch.no_grad():
        net(torch.rand(64, *SHAPE))  # statistics for the batch norm
    return Classifier.wrap(net, "6", CLASSES, readout, mean=0.4, std=0.3).eval()


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def own(detector: Detector, x: Tensor, model: Classifier | None = None) -> list[Tensor]:
    """Logits, embedding and score by classifier and detector themselves."""
    view = View.from_model(model or classifier(), x, detector.reads)
    return [view.logits, view.embeddings, detector.score(view)]


@cache
def fitted(name: str) -> tuple[Detector, float]:
    """A detector fitted on classes of unequal sizes, and the median of its scores: half of all images are flagged."""
    x = images(150, 1)
    view = View.from_model(classifier(), x, ["module.3"])
    with torch.no_grad():
        seen = Features(
            view.embeddings,
            view.logits,
            torch.arange(150) % 10 % CLASSES,
            {"module.3": view.layer("module.3")},
        )
    detector = DETECTORS[name].fit(seen, seen)
    return detector, float(own(detector, images(51, 2))[2].median())


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each detector's graph in onnxruntime, made once."""
    folder = tmp_path_factory.mktemp("onnx")

    @cache
    def session(name: str) -> Any:
        import onnxruntime

        path = export_onnx(classifier(), *fitted(name), images(2, 0), folder / f"{name}.onnx")
        return onnxruntime.InferenceSession(path)

    return session


def hold(got: list[Any], wanted: list[Tensor], threshold: float, name: str = "") -> None:
    """Outputs equal within 1e-4; flags wherever the score is no closer than that to the threshold.

    Of ``kde_near`` logits and embedding alone: a score near 0 depends on how the processor rounds the embedding.
    """
    logits, embedding, score, flag = map(np.asarray, got)
    assert (
        logits.dtype == embedding.dtype == np.float32 and score.dtype == np.float64 and flag.dtype == np.bool_
    )
    for ours, theirs in zip((logits, embedding), wanted[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))
    if name == "kde_near":
        return
    right = wanted[2].numpy()
    bound = 1e-4 * np.maximum(1, np.abs(right))
    assert (np.abs(score - right) <= bound).all()
    clear = np.abs(right - threshold) > bound
    assert (flag == (right > threshold))[clear].all()
    assert (flag == (score > threshold)).all()


def hold_near(got: list[Any], detector: Detector, threshold: float) -> None:
    """The score of the graph's own embedding and logits in float64, and its flags, to the last.

    At a bandwidth far below the distances, float32's rounding of the embedding alone moves a score by more than 1e-4.
    """
    logits, embedding, score, flag = map(torch.as_tensor, got)
    wanted = detector.score(View.from_features(embedding, logits))
    torch.testing.assert_close(score, wanted, rtol=1e-9, atol=1e-9)
    assert torch.equal(flag, score > threshold)


@needs_onnx
@pytest.mark.parametrize("name", DETECTORS)
def test_onnx_gives_what_the_detector_gives(sessions: Any, name: str) -> None:
    detector, threshold = fitted(name)
    session = sessions(name)
    assert [node.name for node in session.get_inputs()] == ["images"]
    assert [node.name for node in session.get_outputs()] == list(OUTPUTS)
    for count in (1, 2, 51):
        x = images(count, 2)
        got = session.run(None, {"images": x.numpy()})
        hold(got, own(detector, x), threshold, name)
        if set(detector.reads) <= {"embedding", "logits"}:
            hold_near(got, detector, threshold)
    assert 20 <= int(got[3].sum()) <= 30


@needs_onnx
@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["kde", "kde_near", "mahalanobis", "msp", "knn"]),
    count=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    edge=st.sampled_from(["inside", "corners", "black", "white", "mixed"]),
)
def test_any_batch_of_images_in_the_box(sessions: Any, name: str, count: int, seed: int, edge: str) -> None:
    x = images(count, seed)
    if edge == "corners":
        x = x.round()
    elif edge in ("black", "white"):
        x = torch.full_like(x, float(edge == "white"))
    elif edge == "mixed":
        x = (3 * x - 1).clamp(0, 1)
    detector, threshold = fitted(name)
    got = sessions(name).run(None, {"images": x.numpy()})
    hold(got, own(detector, x), threshold, name)
    if name != "mahalanobis":  # which reads a layer that is no output
        hold_near(got, detector, threshold)


@needs_onnx
def test_scores_near_minus_1000_keep_their_order(sessions: Any) -> None:
    x = images(60, 5)
    (score,) = sessions("kde_near").run(["score"], {"images": x.numpy()})
    wanted = own(fitted("kde_near")[0], x)[2].numpy()
    assert wanted.max() > 1000 and len(np.unique(score)) == 60
    apart = np.abs(wanted[:, None] - wanted) > 1e-4 * np.abs(wanted[:, None])
    assert ((score[:, None] < score) == (wanted[:, None] < wanted))[apart].all()


@pytest.mark.parametrize("name", DETECTORS)
def test_a_program_gives_what_the_detector_gives(tmp_path: Path, name: str) -> None:
    detector, threshold = fitted(name)
    path = export_program(classifier(), detector, threshold, images(2, 0), tmp_path / "watched.pt2")
    module = torch.export.load(path).module()
    for count in (1, 3, 51):
        got = [value.detach() for value in module(images(count, 2))]
        wanted = own(detector, images(count, 2))
        hold(got, wanted, threshold)
        torch.testing.assert_close(got[0], wanted[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got[2], wanted[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_without_a_score_is_flagged(tmp_path: Path, name: str, sessions: Any) -> None:
    x = images(3, 2)
    x[1] = torch.nan
    path = export_program(classifier(), *fitted(name), images(2, 0), tmp_path / "watched.pt2")
    flag = torch.export.load(path).module()(x)[3]
    assert flag[1] and flag[::2].tolist() == (own(fitted(name)[0], x[::2])[2] > fitted(name)[1]).tolist()
    if ONNX:
        assert sessions(name).run(["flag"], {"images": x.numpy()})[0].tolist() == flag.tolist()


def test_kernels_of_an_older_state_and_a_reverse_readout(tmp_path: Path) -> None:
    """Kernels that were stored as float64, and such as only float64 holds."""
    model, x = classifier("reverse"), images(20, 3)
    for shift in (0.0, 1e-9):
        state = fitted("kde")[0].state_dict()
        state["kernels"] = state["kernels"].double() + shift
        detector = KDE().load_state_dict(state)
        path = export_program(model, detector, 5.0, x, tmp_path / "watched.pt2")
        got = [value.detach() for value in torch.export.load(path).module()(x)]
        hold(got, own(detector, x, model), 5.0)


@needs_onnx
def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(export, "EXTERNAL", 0)
    detector, threshold = fitted("kde")
    path = export_onnx(classifier(), detector, threshold, images(2, 0), tmp_path / "watched.onnx")
    assert {file.name for file in tmp_path.iterdir()} == {"watched.onnx", "watched.onnx.data"}
    x = images(9, 4)
    hold(onnxruntime.InferenceSession(path).run(None, {"images": x.numpy()}), own(detector, x), threshold)


@needs_onnx
def test_the_graph_says_what_it_is(tmp_path: Path) -> None:
    import onnx

    detector, threshold = fitted("kde")
    names = ["cat", "dog, small", "Maus", "ключ"]
    path = export_onnx(
        classifier(), detector, threshold, images(1, 0), tmp_path / "watched.onnx", classes=names, fpr=0.05
    )
    model = onnx.load(path)
    onnx.checker.check_model(model)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert float(told["threshold"]) == threshold and float(told["fpr"]) == 0.05
    assert json.loads(told["classes"]) == names
    assert told["version"] == pdm_lightning.__version__ and told["detector"] == repr(detector)


def test_the_program_says_what_it_is(tmp_path: Path) -> None:
    detector, threshold = fitted("msp")
    path = export_program(classifier(), detector, threshold, images(1, 0), tmp_path / "watched.pt2")
    extra = {"metadata.json": ""}
    torch.export.load(path, extra_files=extra)
    assert set(json.loads(extra["metadata.json"])) == {"version", "detector", "threshold"}


def test_classifier_and_detector_stay_as_they_were(tmp_path: Path) -> None:
    model = classifier()
    model.train()
    try:
        export_program(model, *fitted("kde"), images(2, 0), tmp_path / "watched.pt2")
        assert model.training and all(p.requires_grad for p in model.parameters())
    finally:
        model.eval()


@pytest.mark.parametrize("embedding", [None, "1"])
def test_a_network_that_has_not_run_is_looked_into_first(tmp_path: Path, embedding: str | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Tanh(), nn.Linear(6, CLASSES), nn.Softmax(dim=1))
    x, ran = images(5, 1), Classifier.wrap(net, embedding)
    z, logits = (part.detach() for part in ran.embed_and_logits(x))
    features = Features(z, logits, logits.argmax(dim=1))
    path = export_program(
        Classifier.wrap(net, embedding), MSP().fit(features, features), 0.5, x, tmp_path / "net.pt2"
    )
    torch.testing.assert_close(torch.export.load(path).module()(x)[0], logits)
