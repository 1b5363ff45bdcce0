"""What is measured of trained models, against closed forms and against what attacks and detectors say themselves."""

from __future__ import annotations

import csv
import io
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from attacks import BIM, FGSM
from detection import KDE, View, auc
from pdm_lightning.data import to_unit
from pdm_lightning.models import Classifier
from pdm_lightning.report.figures import figure_csv
from pdm_lightning.report.results import StudyResult
from pdm_lightning.stages import bound, craft, features, layer_gradients
from pdm_lightning.study.execute import Outcome
from pdm_lightning.study.plan import Node
from pdm_lightning.study.results import collect

pytestmark = pytest.mark.slow

STUDY = runpy.run_path(str(Path(__file__).with_name("measured_study.py")))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return STUDY["run"](tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def result(study: Any) -> StudyResult:
    return collect(study.plan, study.context, Outcome(), "pdml run", "0")


def seen(study: Any, node: Node, images: int = 24) -> tuple[Classifier, Tensor, Tensor, Any]:
    """The classifier of a measurement, its first test images with classes, and all test features."""
    parent = node.parents["features"]
    data, model = (
        study.context.data(parent),
        study.context.classifier(parent.parents["train"], torch.device("cpu")),
    )
    order = data.test_order(images)
    return (
        model,
        to_unit(data.test[0][order]),
        data.test[1][order],
        features.read(study.artifact(parent))["test"],
    )


# ---- the bound


def test_bound_by_brute_force(study: Any) -> None:
    node = study.nodes("bound")["pdm"]
    model, x, y, test = seen(study, node)
    told = study.artifact(node).json("bound.json")
    right = (test.predicted == test.labels).numpy()
    points, labels = test.embeddings.numpy().astype(float)[right], test.labels.numpy()[right]
    distances = cdist(points, points)
    distances[labels[:, None] == labels] = np.inf
    assert told["eta"]["value"] == pytest.approx(distances.min(), rel=1e-9)
    assert told["eta_q01"]["value"] == pytest.approx(np.quantile(distances.min(axis=1), 0.01), rel=1e-9)
    assert told["eta"]["n"] == right.sum()
    kept = load_file(study.artifact(node).file("bound.safetensors"))
    won = model(x).argmax(dim=1) == y
    assert len(kept["index"]) == int(won.sum()) == told["bound"]["n"]
    whole = torch.autograd.functional.jacobian(lambda image: model.embed_and_raw(image)[0], x[won][:2])
    expected = [float(whole[i, :, i].double().norm()) for i in range(2)]
    assert kept["jacobian"][:2].tolist() == pytest.approx(expected, rel=1e-4)
    assert torch.equal(kept["bound"], told["eta"]["value"] / kept["jacobian"])
    assert told["bound"]["value"] == pytest.approx(float(kept["bound"].mean()))


def test_rank_by_hand(tmp_path: Path) -> None:
    """Images 3, 1, 7 in both; the attack failed on 7, and image 9 has no Jacobian."""
    parents = {"bound": Node("bound", {}), "craft": Node("craft", {})}
    index = torch.tensor([1, 3, 7, 5])
    save_file(
        {"index": index, "bound": torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)}, tmp_path / "b"
    )
    rows = {"index": torch.tensor([9, 7, 5, 3, 1]), "success": torch.tensor([True, False, True, True, True])}
    save_file(rows | {"l2": torch.tensor([9.0, 9.0, 0.25, 2.0, 1.0])}, tmp_path / "c")
    files = {parents["bound"].key: tmp_path / "b", parents["craft"].key: tmp_path / "c"}
    stored = SimpleNamespace(artifact=lambda node: SimpleNamespace(file=lambda _name: files[node.key]))
    bound.rank(Node("rank", {"bootstrap": 50}, parents), tmp_path, stored)  # type: ignore[arg-type]
    told, kept = json.loads((tmp_path / "rank.json").read_text()), load_file(tmp_path / "rank.safetensors")
    assert kept["index"].tolist() == [5, 3, 1] and kept["bound"].tolist() == [0.3, 0.4, 0.1]
    assert told["bound_rank"]["value"] == pytest.approx(spearmanr([0.3, 0.4, 0.1], [0.25, 2, 1]).statistic)
    assert (told["below_bound"]["value"], told["below_bound"]["n"]) == (pytest.approx(1 / 3), 3)


# ---- gradients by layer


@pytest.mark.parametrize("defense", ["ce", "rce"])
def test_gradients_at_the_embedding_in_closed_form(study: Any, defense: str) -> None:
    """Cross-entropy: W'(softmax - one-hot) of the readout; reverse: W'(softmax - R) of the raw logits."""
    node = study.nodes("layer_gradients")[defense]
    model, x, y, _ = seen(study, node)
    told = study.artifact(node).json("layer_gradients.json")
    with torch.no_grad():
        raw = model.embed_and_raw(x)[1].double()
    weight, hot = model.head.weight.detach().double(), F.one_hot(y, 10).double()
    sign = -1.0 if defense == "rce" else 1.0
    attacked = (F.softmax(sign * raw, dim=1) - hot) @ (sign * weight)
    reverse = (1 - hot) / 9
    trained = attacked if defense == "ce" else (F.softmax(raw, dim=1) - reverse) @ weight
    for loss, slope in (("attack", attacked), ("train", trained)):
        expected = float(slope.norm(dim=1).mean())
        assert told[loss]["embedding"]["value"] == pytest.approx(expected, rel=1e-3), loss
        assert told[loss]["embedding"]["n"] == 24
    assert list(layer_gradients.read(study.artifact(node))["attack"]) == [
        "input",
        "stem",
        "stage1",
        "stage2",
        "stage3",
        "embedding",
    ]


def test_gradients_at_layers_are_those_of_images_alone(study: Any) -> None:
    """Every other layer against a pass of one image, cut at that layer."""
    node = study.nodes("layer_gradients")["ce"]
    model, x, y, _ = seen(study, node)
    told = study.artifact(node).json("layer_gradients.json")["attack"]
    net, sizes = model.backbone, {"stage2": [], "stage3": [], "input": []}
    for image, label in zip(x[:, None], y[:, None], strict=True):
        leaf = image.clone().requires_grad_()
        second = net.stage2(net.stage1(net.stem(model.centre(leaf))))
        third = net.stage3(second)
        logits = model.head(net.final(third).mean(dim=(2, 3)))
        slopes = torch.autograd.grad(F.cross_entropy(logits, label), [second, third, leaf])
        for name, slope in zip(sizes, slopes, strict=True):
            sizes[name].append(float(slope.norm()))
    for name, norms in sizes.items():
        assert told[name]["value"] == pytest.approx(np.mean(norms), rel=1e-3), name


# ---- step by step


def test_a_walk_is_the_attack_s_own(study: Any) -> None:
    node = study.nodes("walk")["ce"]
    model, x, y, _ = seen(study, node)
    won = model(x).argmax(dim=1) == y
    x, y = x[won], y[won]
    kept, told = (
        load_file(study.artifact(node).file("walk.safetensors")),
        study.artifact(node).json("walk.json"),
    )
    assert kept["fooled"].shape == (11, int(won.sum())) and not kept["fooled"][0].any()
    end, first = BIM(eps=0.1)(model, x, y), FGSM(eps=0.01)(model, x, y)
    assert torch.equal(kept["fooled"][10], model(end.x_adv).argmax(dim=1) != y)
    weight = model.head.weight.detach().double()
    for step, images in ((0, x), (1, first.x_adv), (10, end.x_adv)):
        slope = (F.softmax(model(images).double(), dim=1) - F.one_hot(y, 10)) @ weight
        assert kept["embedding"][step].tolist() == pytest.approx(slope.norm(dim=1).tolist(), rel=1e-3)
    means = kept["embedding"].mean(dim=1)
    assert told["gradient_growth"]["value"] == pytest.approx(float(means[10] / means[0]))
    assert [point["value"] for point in told["embedding"]] == pytest.approx(means.tolist())
    assert told["fooled"][10]["value"] == pytest.approx(float(kept["fooled"][10].double().mean()))


# ---- bandwidths


def test_bandwidths_are_those_of_detectors_fitted_anew(study: Any) -> None:
    node = study.nodes("bandwidths")["ce"]
    told = study.artifact(node).json("bandwidths.json")
    assert [point["factor"] for point in told["points"]] == [0.5, 1.0, 2.0]
    parent = node.parents["detector"].parents["features"]
    sets, rows = features.read(study.artifact(parent)), craft.read(study.artifact(node.parents["craft"]))
    fooled = rows["predicted"] != rows["y"]
    clean, adversarial = rows["index"][fooled], fooled
    for point in told["points"]:
        judge = KDE(bandwidth=told["bandwidth"] * point["factor"]).fit(sets["train"], sets["validation"])
        test = sets["test"]
        before = judge.score(View.from_features(test.embeddings[clean], test.logits[clean]))
        after = judge.score(View.from_features(rows["embeddings"][adversarial], rows["logits"][adversarial]))
        assert point["auc"]["value"] == pytest.approx(auc(before, after), abs=1e-12)
        assert point["auc"]["n"] == int(fooled.sum()) > 3


# ---- in a report


def test_rows_of_measurements(result: StudyResult, study: Any) -> None:
    by_metric = {(row.metric, row.defense, row.attack): row for row in result.rows}
    row = by_metric["gradient_attack:stage2", "rce", "none"]
    told = study.artifact(study.nodes("layer_gradients")["rce"]).json("layer_gradients.json")["attack"][
        "stage2"
    ]
    assert (row.value, row.ci_low, row.ci_high, row.n) == (told["value"], told["low"], told["high"], 24)
    growth = by_metric["gradient_growth", "pdm", "bim_010"]
    assert growth.artifact == study.nodes("walk")["pdm"].key and growth.threat == "gray_box"
    at_one = study.artifact(study.nodes("bandwidths")["ce"]).json("bandwidths.json")["points"][1]["auc"]
    assert by_metric["auc", "ce", "bim_010"].value == at_one["value"]
    assert ("bound_rank", "ce", "bim_010") not in by_metric and (
        "bound_rank",
        "ce",
        "min_norm_l2",
    ) in by_metric


def test_figures_hold_the_numbers_of_the_rows(result: StudyResult) -> None:
    """Every point of every curve that has rows is the row's value and interval."""
    figures = {
        figure.name: list(csv.DictReader(io.StringIO(figure_csv(figure)))) for figure in result.figures
    }
    names = {"gradients", "walk", "bandwidths", "curves", "auc_eps", "auc_success", "convergence", "bound"}
    assert set(figures) == names
    labels = {label: name for name, label in result.labels["defense"].items()}
    rows = {(r.metric, r.defense, r.attack): r for r in result.rows}
    looked_at = 0
    for name, metric in (("curves", "robust_accuracy"), ("auc_eps", "auc_all"), ("auc_eps", "auc")):
        for point in figures[name]:
            if name == "auc_eps" and ("failures kept" in point["panel"]) != (metric == "auc_all"):
                continue
            swept = [r.attack for r in result.rows if r.attack.startswith("fgsm")]
            attack = next(name for name in swept if float(name[9:-1]) == float(point["x"]))
            row = rows[metric, labels[point["series"]], attack]
            drawn = tuple(float(point[name]) for name in ("y", "low", "high"))
            assert drawn == (row.value, row.ci_low, row.ci_high)
            looked_at += 1
    assert looked_at > 20
    shares = {(metric, *where): row.value for (metric, *where), row in rows.items()}
    swept = [name for metric, _, name in rows if metric == "auc" and name.startswith("fgsm")]
    for point in figures["auc_success"]:
        defense, drawn = labels[point["series"]], (float(point["x"]), float(point["y"]))
        assert drawn in [
            tuple(shares[m, defense, name] for m in ("misclassified_rate", "auc")) for name in swept
        ]
    assert len(figures["auc_success"]) > 3
    longer = [point for point in figures["convergence"] if "share misclassified" in point["panel"]]
    assert {point["x"] for point in longer} == {"2.0", "8.0"} and len(longer) == 6
    for point in longer:
        attack = f"cw_converged[lr=0.1,max_iterations={float(point['x']):g}]"
        row = rows["misclassified_rate", labels[point["series"]], attack]
        assert (float(point["y"]), float(point["low"])) == (row.value, row.ci_low)
    layers = ["input", "stem", "stage1", "stage2", "stage3", "embedding"]
    for point in figures["gradients"]:
        loss = "gradient_attack" if "attack loss" in point["panel"] else "gradient_train"
        row = rows[f"{loss}:{layers[int(point['x'])]}", labels[point["series"]], "none"]
        assert float(point["y"]) == row.value
    ends = [p for p in figures["walk"] if "at the embedding" in p["panel"] and p["x"] in ("0", "10")]
    assert len(ends) == 6
    for point in ends:
        end = "gradient_first" if point["x"] == "0" else "gradient_last"
        assert float(point["y"]) == rows[end, labels[point["series"]], "bim_010"].value
