"""The attacked images of a report: the same test images against every defence, read row by row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from pdm_lightning.data import ImageData
from pdm_lightning.report import formats
from pdm_lightning.report.gallery import Example, Gallery, GalleryRow
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Artifact
from pdm_lightning.study.curves import Open
from pdm_lightning.study.exhibits import attacked
from pdm_lightning.study.plan import Entry, Plan

GROUPS = ("data", "model", "attack", "threat", "budget")


def galleries(plan: Plan, context: Context, opened: Open) -> tuple[list[Gallery], list[str]]:
    """One gallery for each (data, model, attack, threat) whose cells ask for examples, and what a reader has to know.

    A defence with several seeds or detectors shows the first of them. Where the originals are no longer there, a note
    says so in the place of the galleries.
    """
    found: dict[tuple[str, ...], dict[str, Entry]] = {}
    for entry in plan.entries:
        if entry.cell.config["report"].get("examples") and "score" in entry.nodes:
            place = tuple(entry.cell.name(group) for group in GROUPS)
            found.setdefault(place, {}).setdefault(entry.cell.name("defense"), entry)
    made = []
    for entries in found.values():
        sources = [source for entry in entries.values() if (source := _source(entry, opened)) is not None]
        if not sources:
            continue
        try:
            data = context.data(sources[0].entry.nodes["craft"])
        except (OSError, ValueError) as error:
            return [], [f"No attacked images: {' '.join(str(error).split())}"]
        gallery = _gallery(sources, data)
        if gallery.columns:
            made.append(gallery)
    return made, []


@dataclass(frozen=True)
class _Source:
    """A defence's entry with its artifacts: the rows of the two belong together."""

    entry: Entry
    craft: Artifact
    scores: dict[str, np.ndarray]
    thresholds: dict[str, float | None]


def _source(entry: Entry, opened: Open) -> _Source | None:
    craft, score = opened(entry.nodes["craft"]), opened(entry.nodes["score"])
    if craft is None or score is None:
        return None
    scores = load_file(score.file("scores.safetensors"))
    return _Source(entry, craft, scores, score.json("score.json")["thresholds"])


def _gallery(sources: list[_Source], data: ImageData) -> Gallery:
    cell = sources[0].entry.cell
    indices = _indices(sources, int(cell.config["report"]["examples"]))
    fpr = _alarm(sources)
    threat = cell.label("threat").replace("_", " ")
    alarm = f" at the threshold frozen for {formats.false_positives(float(fpr))}" if fpr else ""
    return Gallery(
        title=f"{cell.label('attack')} on {cell.label('data')}, {threat}",
        caption=(
            f"Model {cell.label('model')}; detector {cell.label('detector')}; flagged{alarm}. The first test images "
            f"that the attack turned for the most defences; seed {cell.config['seed']}."
        ),
        columns=[(index, str(data.classes[int(data.test[1][index])])) for index in indices],
        rows=[
            GalleryRow(source.entry.cell.label("defense"), _examples(source, indices, data, fpr))
            for source in sources
        ],
    )


def _indices(sources: list[_Source], count: int) -> list[int]:
    """Test images that were fooled, then attacked, for the most defences, the first of the test set first."""
    fooled: Counter[int] = Counter()
    tried: Counter[int] = Counter()
    for source in sources:
        index, won = source.scores["index"], source.scores["fooled"].astype(bool)
        tried.update(index.tolist())
        fooled.update(index[won].tolist())
    return sorted(tried, key=lambda index: (-fooled[index], -tried[index], index))[:count]


def _alarm(sources: list[_Source]) -> str:
    """The largest false-positive rate that all have a threshold for."""
    rates = [
        rate for rate in sources[0].thresholds if all(s.thresholds.get(rate) is not None for s in sources)
    ]
    return max(rates, key=float, default="")


def _examples(source: _Source, indices: list[int], data: ImageData, fpr: str) -> list[Example | None]:
    held = {int(index): row for row, index in enumerate(source.scores["index"])}
    images, predicted = attacked(source.craft, [held[index] for index in indices if index in held])
    found: list[Example | None] = []
    for index in indices:
        row = held.get(index)
        found.append(None if row is None else _example(source, index, row, images[row], predicted, data, fpr))
    return found


def _example(
    source: _Source, index: int, row: int, image: np.ndarray, predicted: np.ndarray, data: ImageData, fpr: str
) -> Example:
    numbers: dict[str, Any] = {name: float(source.scores[name][row]) for name in ("l2", "linf")}
    return Example(
        original=np.moveaxis(data.test[0][index].numpy(), 0, 2).astype(np.float32) / 255,
        adversarial=np.moveaxis(image, 0, 2),
        label=str(data.classes[int(data.test[1][index])]),
        predicted=str(data.classes[int(predicted[row])]),
        score=float(source.scores["adversarial"][row]),
        threshold=source.thresholds[fpr] if fpr else None,
        **numbers,
    )
