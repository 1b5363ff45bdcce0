"""The data of a report's figures, read from stored artifacts and from the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from safetensors.numpy import load_file

from pdm_lightning.report.results import Figure
from pdm_lightning.stages import craft
from pdm_lightning.study.curves import (
    Answers,
    Open,
    auc_curves,
    convergence,
    curves,
    place,
    rejection,
    several_seeds,
)
from pdm_lightning.study.measured_figures import bandwidths, bound, gradients, walk
from pdm_lightning.study.plan import Entry, Plan
from pdm_lightning.study.roc_figure import roc_curves
from pdm_lightning.study.shown import asked, in_figure
from pdm_lightning.study.success_figure import success
from pdm_lightning.study.weights_figure import weights


def figures(plan: Plan, opened: Open, answers: Answers) -> list[Figure]:
    """The figures that cells of the study ask for, of these cells, as far as their artifacts are there.

    Raises
    ------
    ValueError
        For a figure that does not exist.
    """
    made = []
    for name in asked(plan.entries, "figures"):
        if name not in _MAKERS:
            raise ValueError(f"report.figures: {name!r} is unknown: use {', '.join(_MAKERS)}")
        part = replace(
            plan,
            entries=[entry for entry in plan.entries if in_figure(entry, name)],
            measured=[one for one in plan.measured if in_figure(one.entry, name)],
        )
        own = [(entry, rows) for entry, rows in answers if in_figure(entry, name)]
        made += _MAKERS[name](part, opened, own)
    return [figure for figure in made if figure.panels]


def _once(plan: Plan, kind: str) -> list[Entry]:
    """The first entry of each distinct node of a kind."""
    entries = {entry.nodes[kind].key: entry for entry in reversed(plan.entries) if kind in entry.nodes}
    return [
        entry for entry in plan.entries if kind in entry.nodes and entries[entry.nodes[kind].key] is entry
    ]


def _classes(entry: Entry, opened: Open) -> list[str]:
    train = opened(entry.nodes["train"])
    return list(train.json("data.json")["classes"]) if train else []


def _tsne(plan: Plan, opened: Open, _answers: Answers) -> list[Figure]:
    panels, seeds = [], several_seeds(plan.entries)
    for entry in _once(plan, "tsne"):
        artifact, classes = opened(entry.nodes["tsne"]), _classes(entry, opened)
        if artifact is None or not classes:
            continue
        arrays, numbers = load_file(artifact.file("tsne.safetensors")), artifact.json("tsne.json")
        panels.append(
            {
                "title": place(entry, seeds, "defense"),
                "points": arrays["points"],
                "labels": arrays["labels"],
                "classes": classes,
                "dbi": numbers["dbi"],
                "dbi_2d": numbers["dbi_2d"],
            }
        )
    caption = (
        "t-SNE of test embeddings, one colour a class. DBI: Davies-Bouldin index of the embeddings themselves "
        "(lower is better clustered); beside it that of the plotted points."
    )
    return [Figure("tsne", "tsne", "Embeddings", caption, panels)]


def _confusion(plan: Plan, opened: Open, _answers: Answers) -> list[Figure]:
    panels, seeds = [], several_seeds(plan.entries)
    for entry in _once(plan, "craft"):
        artifact, classes = opened(entry.nodes["craft"]), _classes(entry, opened)
        if artifact is None or not classes:
            continue
        rows = craft.read(artifact)
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        fooled = (rows["predicted"] != rows["y"]).numpy()
        np.add.at(counts, (rows["y"].numpy()[fooled], rows["predicted"].numpy()[fooled]), 1)
        title = place(entry, seeds, "defense", "attack")
        panels.append({"title": title, "counts": counts, "classes": classes})
    caption = "How often an image of a class (row) was taken for another class (column) after the attack."
    return [Figure("confusion", "confusion", "Original against adversarial class", caption, panels)]


_MAKERS: dict[str, Callable[[Plan, Open, Answers], list[Figure]]] = {
    "tsne": _tsne,
    "confusion": _confusion,
    "curves": lambda _plan, _opened, answers: curves(answers),
    "auc_eps": lambda _plan, _opened, answers: auc_curves(answers),
    "auc_success": lambda _plan, _opened, answers: success(answers),
    "convergence": lambda _plan, _opened, answers: convergence(answers),
    "roc": lambda _plan, opened, answers: roc_curves(answers, opened),
    "rejection": lambda _plan, opened, answers: rejection(answers, opened),
    "gradients": lambda plan, opened, _answers: gradients(plan, opened),
    "walk": lambda plan, opened, _answers: walk(plan, opened),
    "bound": lambda plan, opened, _answers: bound(plan, opened),
    "bandwidths": lambda plan, opened, _answers: bandwidths(plan, opened),
    "weights": lambda _plan, _opened, answers: weights(answers),
}
