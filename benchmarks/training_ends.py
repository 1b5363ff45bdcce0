"""What a study adds to its steps: at a segment's end a checkpoint and the log, every so often a validation."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.training_cases import Case, images, spec
from benchmarks.training_ways import Over, now, ours
from pdm_lightning.lit import PDMModule
from pdm_lightning.stages.begun import batches

#: Steps of a segment as studies have it, `budget=short`.
SEGMENT = 100
#: Steps of a segment that is measured, and how many there are; the first one sets up what later ones find ready.
STEPS, SEGMENTS = 4, 5


def measure(case: Case, root: str | None, clock: str) -> dict[str, float]:
    """Seconds, by the chosen clock.

    Returns
    -------
    dict
        ``step``, ``end`` of a segment without its validation, ``validation``, ``every`` (segments of `SEGMENT` steps
        from one validation to the next), and what a study takes longer than its steps: ``adds end``, ``adds
        validation``, shares of `SEGMENT` steps.
    """
    data, told = images(case, root), spec(case, STEPS, STEPS * SEGMENTS)
    marks: list[float] = []
    looks: list[tuple[float, float]] = []

    def step(done: int = 1, **_: Any) -> None:
        if done:
            marks.append(now(clock))

    with contextlib.suppress(Over), tempfile.TemporaryDirectory() as folder, watched(clock, looks):
        ours(case, root, step, Path(folder), told)
    middle, end = split(marks, looks)
    look = median(b - a for a, b in looks)
    every = batches(data, told, SEGMENT).segments_of_validation
    return {
        "step": middle,
        "end": end,
        "validation": look,
        "every": every,
        "adds end": end / (SEGMENT * middle),
        "adds validation": look / (every * SEGMENT * middle),
    }


def split(marks: Sequence[float], looks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Median seconds of a step within its segment, and what one that follows a segment's end takes longer.

    Parameters
    ----------
    marks
        When each step was done.
    looks
        When validations began and ended; they are of neither.
    """
    inner: list[float] = []
    after: list[float] = []
    for k in range(STEPS, len(marks)):
        own = marks[k] - marks[k - 1] - sum(b - a for a, b in looks if marks[k - 1] <= a < marks[k])
        (inner if k % STEPS else after).append(own)
    return median(inner), max(median(after) - median(inner), 0.0)


@contextlib.contextmanager
def watched(clock: str, looks: list[tuple[float, float]]) -> Iterator[None]:
    """Note when validations begin and end; the last one ends the training."""
    originals = {
        name: getattr(PDMModule, name) for name in ("on_validation_start", "on_validation_epoch_end")
    }
    first, last = originals.values()
    began = [0.0]

    def begin(module: PDMModule) -> None:
        began[0] = now(clock)
        first(module)

    def end(module: PDMModule) -> None:
        last(module)
        looks.append((began[0], now(clock)))
        if module.trainer.current_epoch + 1 == SEGMENTS:
            raise Over

    try:
        for name, own in zip(originals, (begin, end), strict=True):
            setattr(PDMModule, name, own)
        yield
    finally:
        for name, original in originals.items():
            setattr(PDMModule, name, original)
