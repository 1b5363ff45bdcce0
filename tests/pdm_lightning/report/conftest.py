"""A small invented study that the report's tests start from."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest

from pdm_lightning.card import judge
from pdm_lightning.card.evidence import Evidence
from pdm_lightning.report import Failure, Figure, Row, StudyResult, build_tables
from pdm_lightning.report.gallery import Example, Gallery, GalleryRow
from pdm_lightning.report.tables import Table

WHERE = {"model": "resnet8", "budget": "toy", "seed": 0}
SCORED = {**WHERE, "threat": "gray_box", "detector": "kde", "bandwidth": "validation"}
LABELS = {
    "data": {"mnist": "MNIST", "digits": "Digits"},
    "defense": {"ce": "CE", "rce": "RCE", "pdm": "PDM"},
    "attack": {"fgsm_005": "FGSM-0.05", "cw": "C&W"},
    "model": {"resnet8": "ResNet-8"},
    "detector": {"kde": "KDE"},
    "threat": {"gray_box": "gray box"},
}


def accuracy(data: str, defense: str, value: float | None = 0.99, **more) -> Row:
    base = {"data": data, "defense": defense, "metric": "accuracy", "value": value, "n": 540}
    return Row(**{**WHERE, **base, **more})


def auc(data: str, defense: str, attack: str, value: float | None = 0.9, **more) -> Row:
    base = {"data": data, "defense": defense, "attack": attack, "metric": "auc", "value": value, "n": 100}
    return Row(**{**SCORED, **base, **more})


def figures() -> list[Figure]:
    points = np.array([[0.0, 0.0], [1.0, 1.5], [2.0, -1.0]])
    tsne = {
        "title": "CE",
        "points": points,
        "labels": [0, 1, 1],
        "classes": ["a", "b"],
        "dbi": 0.5,
        "dbi_2d": 0.7,
    }
    confusion = {"title": "CE", "counts": [[0, 3], [5, 0]], "classes": ["a", "b"]}
    series = {"label": "CE", "x": [0.0, 0.1], "y": [1.0, 0.5], "low": [0.9, 0.4], "high": [1.0, 0.6]}
    bare = {"label": "RCE", "x": [0.0, 0.1], "y": [1.0, 0.7]}
    curves = {"title": "FGSM", "x_label": "eps", "y_label": "accuracy", "series": [series, bare]}
    return [
        Figure("embeddings", "tsne", "Embeddings", "t-SNE", [tsne]),
        Figure("classes", "confusion", "Classes", "", [confusion]),
        Figure("eps", "curves", "Accuracy against eps", "", [curves, curves]),
    ]


def study(rows: list[Row], **more) -> StudyResult:
    return StudyResult(**{"name": "s", "title": "A study", "rows": rows, "labels": deepcopy(LABELS), **more})


def full_study() -> StudyResult:
    rows = []
    for data in ("digits", "mnist"):
        for defense in ("pdm", "ce"):
            rows += [
                accuracy(data, defense, ci_low=0.98, ci_high=0.995),
                accuracy(data, defense, 0.4, metric="dbi", n=None),
                auc(data, defense, "cw", None, status="n/a", n=12),
                auc(data, defense, "fgsm_005", 0.987, ci_low=0.97, ci_high=0.99, n_attacked=540),
                auc(data, defense, "fgsm_005", 0.6, metric="auc_all", n=540),
                auc(
                    data,
                    defense,
                    "fgsm_005",
                    0.88,
                    metric="misclassified_rate",
                    n=540,
                    detector="",
                    bandwidth="",
                ),
            ]
    failure = Failure("craft: mnist", "RuntimeError: no memory", "failures/craft.txt")
    return study(rows, figures=figures(), failures=[failure], notes=["a note"], command="pdml run")


def gallery(attack: str) -> Gallery:
    """Two defences, of which one did not attack the third image."""
    rng = np.random.default_rng(0)
    rows = []
    for label in ("CE", "PDM"):
        originals = rng.random((3, 16, 16, 3)).astype(np.float32)
        changed = np.clip(originals + rng.uniform(-0.05, 0.05, originals.shape), 0, 1)
        numbers = {"label": "3", "l2": 0.71, "linf": 0.05, "score": 2.0, "threshold": 1.5}
        examples = [Example(a, b, predicted="8", **numbers) for a, b in zip(originals, changed, strict=True)]
        rows.append(GalleryRow(label, [*examples[:2], None if label == "CE" else examples[2]]))
    return Gallery(f"{attack} on MNIST", "Model ResNet-8.", [(4, "3"), (7, "3"), (11, "3")], rows)


def rich_study() -> StudyResult:
    """Many tables, with sections and gaps; figures of every kind; attacked images; a card; hostile names."""
    result = full_study()
    for data in ("digits", "mnist"):
        for k, defense in enumerate(("ce", "pdm", "rce")):
            common = {"detector": "", "bandwidth": "", "artifact": f"{k}123456789abcdef"}
            for a, attack in enumerate(("fgsm_005", "cw", "50% & $x_1$ #{~^\\}")):
                known = (0.9 - 0.1 * k + 0.01 * a, "ok") if (a, k) != (1, 0) else (None, "n/a")
                result.rows.append(auc(data, defense, attack, known[0], status=known[1], threat="white_box"))
                for metric, value in (("seconds", 3.0 + k), ("passes", 10.0), ("l2_mean", 0.5 + k)):
                    result.rows.append(auc(data, defense, attack, value, metric=metric, **common))
            for metric, value in (("seconds", 90.0 - k), ("images_seen", 1000.0)):
                result.rows.append(accuracy(data, defense, value, metric=metric, **common))
    result.card = judge(Evidence({}, [], []))
    result.gallery = [gallery("FGSM-0.05"), gallery("C&W")]
    result.settings = {"machines": "a processor, 2 threads", "long": "x" * 300}
    return result


def tables(rows: list[Row], kind: str = "") -> list[Table]:
    """The tables of attackers who know of the detector, all or those of one kind."""
    made = build_tables(study(rows, tables=["white_box", "black_box", "joint"]))
    return [table for table in made if kind in ("", table.kind)]


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Builders of rows and studies."""
    return SimpleNamespace(
        accuracy=accuracy,
        auc=auc,
        figures=figures,
        study=study,
        full_study=full_study,
        rich_study=rich_study,
        tables=tables,
    )
