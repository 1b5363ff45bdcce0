"""What a tracked run shows beside its numbers: embeddings, ROC curves, attacked images."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from pdm_lightning.data import ImageData
from pdm_lightning.report.palette import LIGHT
from pdm_lightning.report.results import Figure
from pdm_lightning.stages.builders import BUILDERS, source
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Artifact
from pdm_lightning.study.plan import Entry, Node
from pdm_lightning.tracking import MOST_IMAGES, MOST_POINTS, Content, Curve, Example, Table

#: Points of a ROC curve, at most: more than a screen shows, fewer than every threshold.
ROC_POINTS = 200


def embeddings(
    content: Content, context: Context, features: Node, config: Mapping[str, Any], title: str
) -> None:
    """Add the t-SNE plot of test embeddings, coloured by class, and its points.

    The reduction is the node that ``report.figures=[tsne]`` has; where the study has none, it is made here, and kept in
    the store.

    Parameters
    ----------
    features : Node
        Of the classifier.
    config : mapping
        The ``tsne`` group of the study.
    """
    spec = dict(config) | {"points": min(int(config["points"]), MOST_POINTS)}
    artifact = _reduced(context, features, dict(config), spec)
    arrays, numbers = load_file(artifact.file("tsne.safetensors")), artifact.json("tsne.json")
    classes = context.artifact(features.parents["train"]).json("data.json")["classes"]
    points, labels = arrays["points"][:MOST_POINTS], arrays["labels"][:MOST_POINTS]
    panel = {"title": title, "points": points, "labels": labels, "classes": classes, **numbers}
    content.pictures["tsne"] = _drawing("tsne", panel)
    rows = [[float(x), float(y), str(classes[k])] for (x, y), k in zip(points, labels, strict=True)]
    content.tables["tsne"] = Table(["x", "y", "class"], rows)


def _reduced(context: Context, features: Node, asked: dict[str, Any], spec: dict[str, Any]) -> Artifact:
    """The study's own reduction where there is one, else a smaller one."""
    node = Node("tsne", asked, {"features": features}, {}, features.title)
    if asked != spec and not context.store.path(node.kind, node.key).is_dir():
        node = Node("tsne", spec, {"features": features}, {}, features.title)
    build = BUILDERS["tsne"]
    return context.store.get(
        node.kind,
        node.spec,
        node.parent_keys,
        lambda folder: build(node, folder, context),
        source=source(node),
    )


def detection(content: Content, score: Artifact, entry: Entry) -> None:
    """Add the ROC curves whose areas are ``auc`` (where the attack succeeded) and ``auc_all`` (failures kept)."""
    scores, metrics = load_file(score.file("scores.safetensors")), score.json("score.json")
    fooled = scores["fooled"].astype(bool)
    for name, chosen in (("auc", fooled), ("auc_all", np.ones_like(fooled))):
        if metrics[name]["value"] is not None:
            content.roc.append(roc(name, scores["clean"][chosen], scores["adversarial"][chosen]))
    if content.roc:
        panel = {
            "title": f"{entry.cell.label('attack')}, {entry.cell.label('defense')}",
            "x_label": "false-positive rate",
            "y_label": "true-positive rate",
            "series": [{"label": curve.label, "x": curve.x, "y": curve.y} for curve in content.roc],
        }
        content.pictures["roc"] = _drawing("curves", panel)


def roc(label: str, clean: np.ndarray, adversarial: np.ndarray, most: int = ROC_POINTS) -> Curve:
    """ROC curve of telling adversarial from clean scores, its corners thinned to `most` points.

    Parameters
    ----------
    clean, adversarial : (N,), (M,) array
        Higher is more adversarial.
    """
    from sklearn.metrics import roc_curve  # a second that planning a study need not wait

    truth = np.r_[np.zeros(len(clean)), np.ones(len(adversarial))]
    x, y, _ = roc_curve(truth, np.r_[clean, adversarial])
    if len(x) > most:
        kept = np.unique(np.linspace(0, len(x) - 1, most).round().astype(int))
        x, y = x[kept], y[kept]
    return Curve(label, x.tolist(), y.tolist())


def examples(craft: Artifact, score: Artifact, data: ImageData, count: int) -> list[Example]:
    """The first images that the attack won, in the test set's fixed order, then, if they are too few, others.

    Parameters
    ----------
    craft, score : Artifact
        Their rows belong together.
    data : ImageData
        Holds the originals.
    count : int
        At most `MOST_IMAGES`.
    """
    scores, thresholds = load_file(score.file("scores.safetensors")), score.json("score.json")["thresholds"]
    order = np.argsort(~scores["fooled"].astype(bool), kind="stable")[: min(count, MOST_IMAGES)]
    images, predicted = attacked(craft, order.tolist())
    found = []
    for row in order.tolist():
        index = int(scores["index"][row])
        value = float(scores["adversarial"][row])
        flagged = {fpr: value > limit for fpr, limit in thresholds.items() if limit is not None}
        found.append(
            Example(
                index=index,
                original=np.moveaxis(data.test[0][index].numpy(), 0, 2),
                adversarial=np.moveaxis(np.rint(images[row] * 255).astype(np.uint8), 0, 2),
                label=str(data.classes[int(data.test[1][index])]),
                predicted=str(data.classes[int(predicted[row])]),
                clean_score=float(scores["clean"][row]),
                score=value,
                l2=float(scores["l2"][row]),
                linf=float(scores["linf"][row]),
                flagged=flagged,
            )
        )
    return found


def attacked(craft: Artifact, rows: Iterable[int]) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Attacked images by row, (C, H, W) in [0, 1], and the classes that all rows are taken for."""
    with safe_open(str(craft.file("adversarial.safetensors")), framework="np") as file:
        # only these few: a whole set can have gigabytes
        held = file.get_slice("x_adv")
        return {row: held[row : row + 1][0] for row in rows}, file.get_tensor("predicted")


def _drawing(kind: str, panel: dict[str, Any]) -> Callable[[], np.ndarray]:
    """A picture as the report has it, drawn when it is called."""

    def draw() -> np.ndarray:
        from pdm_lightning.report.figures import (
            panel_png,  # Matplotlib, which planning a study need not wait for
        )

        png = panel_png(Figure(kind, kind, ""), panel, LIGHT)
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    return draw
