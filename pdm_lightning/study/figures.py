"""The data of a report's figures, read from stored artifacts and from the rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from safetensors.numpy import load_file

from pdm_lightning.report.results import Figure
from pdm_lightning.stages import craft
from pdm_lightning.study.curves import Answers, Open, curves, place, rejection
from pdm_lightning.study.plan import Entry, Plan


def figures(plan: Plan, opened: Open, answers: Answers) -> list[Figure]:
    """The figures that the study asks for, as far as their artifacts are there.

    Raises
    ------
    ValueError
        For a figure that does not exist.
    """
    makers: dict[str, Callable[[], list[Figure]]] = {
        "tsne": lambda: _tsne(plan, opened),
        "confusion": lambda: _confusion(plan, opened),
        "curves": lambda: curves(answers),
        "rejection": lambda: rejection(answers, opened),
    }
    made = []
    for name in plan.settings["report"]["figures"]:
        if name not in makers:
            raise ValueError(f"report.figures: {name!r} is unknown: use {', '.join(makers)}")
        made += makers[name]()
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


def _tsne(plan: Plan, opened: Open) -> list[Figure]:
    panels = []
    for entry in _once(plan, "tsne"):
        artifact, classes = opened(entry.nodes["tsne"]), _classes(entry, opened)
        if artifact is None or not classes:
            continue
        arrays, numbers = load_file(artifact.file("tsne.safetensors")), artifact.json("tsne.json")
        panels.append(
            {
                "title": place(entry, "defense"),
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


def _confusion(plan: Plan, opened: Open) -> list[Figure]:
    panels = []
    for entry in _once(plan, "craft"):
        artifact, classes = opened(entry.nodes["craft"]), _classes(entry, opened)
        if artifact is None or not classes:
            continue
        rows = craft.read(artifact)
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        fooled = (rows["predicted"] != rows["y"]).numpy()
        np.add.at(counts, (rows["y"].numpy()[fooled], rows["predicted"].numpy()[fooled]), 1)
        panels.append({"title": place(entry, "defense", "attack"), "counts": counts, "classes": classes})
    caption = "How often an image of a class (row) was taken for another class (column) after the attack."
    return [Figure("confusion", "confusion", "Original against adversarial class", caption, panels)]
