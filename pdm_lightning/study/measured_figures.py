"""The data of the figures of what was measured on trained models: gradients, steps, the bound, bandwidths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from pdm_lightning.report.results import Figure
from pdm_lightning.stages import layer_gradients
from pdm_lightning.store import Artifact
from pdm_lightning.study.curves import Open, place, several_seeds
from pdm_lightning.study.measure import Measurement
from pdm_lightning.study.plan import Plan

Panels = dict[str, dict[str, Any]]
_BOUND_LINE = "distance = bound"


def gradients(plan: Plan, opened: Open) -> list[Figure]:
    """Mean L2 norm of the gradients by layer: one panel a data set and loss, one curve a defence."""
    panels: Panels = {}
    for one, artifact, where in _of_kind(plan, "layer_gradients", opened):
        for loss, layers in layer_gradients.read(artifact).items():
            title = f"{where}, {'attack' if loss == 'attack' else 'training'} loss"
            axes = {"x_label": "at the output of", "y_label": "mean L2 norm", "y_log": True}
            panel = panels.setdefault(title, {"title": title, **axes, "x_names": list(layers), "series": []})
            told = [layers[name] for name in panel["x_names"] if name in layers]
            panel["series"].append(_series(_defense(one), range(len(told)), told))
    caption = (
        "Mean over test images of the L2 norm of a loss's gradient, at the image and at the output of each stage. "
        "Attack loss: softmax cross-entropy of the readout logits, as FGSM and BIM climb it. Training loss: what "
        "each defence was trained with; losses of different defences have different scales. Shaded: 95 % bootstrap "
        "intervals."
    )
    return [Figure("gradients", "curves", "Size of the gradients", caption, list(panels.values()))]


def walk(plan: Plan, opened: Open) -> list[Figure]:
    """Along an iterated attack: the gradients' norms and the share fooled after each step."""
    panels: Panels = {}
    for one, artifact, where in _of_kind(plan, "walk", opened):
        found = artifact.json("walk.json")
        for name, y_label, log in _WALKS:
            title = f"{where}: {y_label}"
            axes = {"x_label": "steps taken", "y_label": y_label, "y_log": log}
            panel = panels.setdefault(title, {"title": title, **axes, "series": []})
            panel["series"].append(_series(_defense(one), range(len(found[name])), found[name]))
    caption = (
        "What the attack meets before its first step and after each: the mean L2 norm of the gradient of its own loss "
        "(cross-entropy; of a converged attack the margin of the logits, which does not saturate) at the "
        "embedding and at the image, and the share of the images that are misclassified (success against "
        "iterations). Correctly classified test images. Shaded: 95 % intervals, bootstrap for norms and Wilson for "
        "shares."
    )
    return [Figure("walk", "curves", "Step by step", caption, list(panels.values()))]


_WALKS = (
    ("embedding", "gradient at the embedding", True),
    ("input", "gradient at the image", True),
    ("fooled", "share misclassified", False),
)


def bound(plan: Plan, opened: Open) -> list[Figure]:
    """The bound eta / ||J|| of each image against the distance that a minimum-norm attack needed: a cloud a defence."""
    panels: Panels = {}
    for one, artifact, title in _of_kind(plan, "rank", opened):
        arrays, rho = load_file(artifact.file("rank.safetensors")), artifact.json("rank.json")["bound_rank"]
        axes = {
            "x_label": "bound: eta / ||J||",
            "y_label": "L2 distance needed",
            "x_log": True,
            "y_log": True,
        }
        panel = panels.setdefault(title, {"title": title, **axes, "series": []})
        if len(arrays["l2"]):
            told = "" if rho["value"] is None else f", rank correlation {rho['value']:.2f}"
            points = {"x": arrays["bound"].tolist(), "y": arrays["l2"].tolist(), "points": True}
            panel["series"].append({"label": f"{_defense(one)}{told}", **points})
    for panel in panels.values():
        xs = np.concatenate([series["x"] for series in panel["series"]] or [[]])
        if len(xs):
            ends = [float(xs.min()), float(xs.max())]
            panel["series"].append({"label": _BOUND_LINE, "x": ends, "y": ends, "plain": True})
    caption = (
        "Equation 4 of the paper says that an adversarial image lies at least about eta / ||J|| away (eta: smallest "
        "distance between embeddings of two classes; ||J||: Frobenius norm of the embedding's Jacobian at the image). "
        "One point an image that the attack won; below the line, it needed less. Within a model the order of the "
        "images follows from ||J|| alone."
    )
    drawn = [panel for panel in panels.values() if panel["series"]]
    return [Figure("bound", "curves", "The bound, and what attacks needed", caption, drawn)]


def bandwidths(plan: Plan, opened: Open) -> list[Figure]:
    """AUC against the bandwidth, in units of what the detector's rule chose: one panel a data set and attack."""
    panels: Panels = {}
    for one, artifact, title in _of_kind(plan, "bandwidths", opened):
        points = [p for p in artifact.json("bandwidths.json")["points"] if p["auc"]["value"] is not None]
        cell = one.entry.cell
        axes = {
            "x_label": f"bandwidth / that of the rule ({cell.config['detector']['bandwidth']})",
            "x_log": True,
        }
        panel = panels.setdefault(
            title, {"title": title, **axes, "y_label": "AUC, paired rule", "series": []}
        )
        if points:
            told = [point["auc"] for point in points]
            panel["series"].append(_series(_defense(one), [point["factor"] for point in points], told))
    caption = (
        "AUC of the kernel density detector against its bandwidth; at 1 stands what its rule chose on clean images. "
        "Whoever picks the best point of a curve has tuned on these very images. Shaded: 95 % bootstrap intervals."
    )
    drawn = [panel for panel in panels.values() if panel["series"]]
    return [Figure("bandwidths", "curves", "AUC against bandwidth", caption, drawn)]


#: By kind of node, what its panels are told apart by, where the study has several.
_APART = {
    "layer_gradients": ("budget",),
    "walk": ("budget",),
    "rank": ("budget",),
    "bandwidths": ("budget", "threat", "detector"),
}


def _of_kind(plan: Plan, kind: str, opened: Open) -> Iterator[tuple[Measurement, Artifact, str]]:
    """Each node of a kind once, where its artifact is there, with the title of its panel."""
    nodes = {one.node.key: one for one in reversed(plan.measured) if one.node.kind == kind}
    seeds = several_seeds(plan.entries)
    cells = [one.entry.cell for one in nodes.values()]
    varying = [group for group in _APART[kind] if len({cell.name(group) for cell in cells}) > 1]
    for one in plan.measured:
        artifact = opened(one.node) if nodes.get(one.node.key) is one else None
        if artifact is not None:
            cell = one.entry.cell
            attack = [] if kind == "layer_gradients" else [cell.label("attack")]
            apart = [f"{group} {cell.label(group)}".replace("_", " ") for group in varying]
            yield one, artifact, ", ".join([place(one.entry, seeds), *attack, *apart])


def _defense(one: Measurement) -> str:
    return one.entry.cell.label("defense")


def _series(label: str, xs: Iterable[float], told: list[dict[str, Any]]) -> dict[str, Any]:
    bounds = {key: [point[key] for point in told] for key in ("low", "high")}
    known = all(value is not None for values in bounds.values() for value in values)
    return {
        "label": label,
        "x": list(xs),
        "y": [point["value"] for point in told],
        **(bounds if known else {}),
    }
