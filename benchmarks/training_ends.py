"""What a study adds to its steps: at a segment's end a checkpoint and the log, every so often a validation."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.training_cases import Case, images, spec
from benchmarks.training_ways import Over, as_pdml, now, ours
from pdm_lightning.data.module import PDMDataModule
from pdm_lightning.lit import PDMModule
from pdm_lightning.stages.begun import batches

#: Steps of a segment as studies have it, `budget=short`.
SEGMENT = 100
#: Steps of a segment that is measured, and how many there are; the first one sets up what later ones find ready.
STEPS, SEGMENTS = 4, 4


def measure(case: Case, root: str | None, threads: int, clock: str, out: Path) -> dict[str, float]:
    """Seconds, by the chosen clock, in a process as `ours` has it; checkpoints go to the disk of `out`.

    Returns
    -------
    dict
        ``end`` of a segment without its validation, ``validation``, and ``every``: segments of `SEGMENT` steps from one
        validation to the next.
    """
    with as_pdml(), get_context("spawn").Pool(1, torch.set_num_threads, (threads,)) as pool:
        return pool.apply(_measured, (case, root, clock, out))


def _measured(case: Case, root: str | None, clock: str, out: Path) -> dict[str, float]:
    data, told = images(case, root), spec(case, STEPS, STEPS * SEGMENTS)
    marks: list[float] = []
    looks: list[tuple[float, float]] = []
    every = batches(data, told, SEGMENT).segments_of_validation

    def step(done: int = 1, **_: Any) -> None:
        if done:
            marks.append(now(clock))

    with contextlib.suppress(Over), tempfile.TemporaryDirectory(dir=out) as folder, watched(clock, looks):
        ours(case, root, step, Path(folder), told)
    # the first one sets up what later ones find ready
    return {"end": split(marks, looks), "validation": median(b - a for a, b in looks[1:]), "every": every}


def added(case: Case, line: dict[str, Any]) -> dict[str, float]:
    """What a study takes longer than its steps, as shares of them: ``adds end``, ``adds validation``."""
    steps = SEGMENT * case.seen / line["ours images/s"]
    return {"adds end": line["end"] / steps, "adds validation": line["validation"] / (line["every"] * steps)}


def split(marks: Sequence[float], looks: Sequence[tuple[float, float]]) -> float:
    """What a step that follows a segment's end takes longer than others, in seconds; by the medians of both.

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
    return max(median(after) - median(inner), 0.0)


@contextlib.contextmanager
def watched(clock: str, looks: list[tuple[float, float]]) -> Iterator[None]:
    """Have every segment end with a validation, note when they begin and end; the last one ends the training."""
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

    often = PDMDataModule.segments_of_validation
    try:
        PDMDataModule.segments_of_validation = 1  # type: ignore[assignment, method-assign]
        for name, own in zip(originals, (begin, end), strict=True):
            setattr(PDMModule, name, own)
        yield
    finally:
        PDMDataModule.segments_of_validation = often  # type: ignore[method-assign]
        for name, original in originals.items():
            setattr(PDMModule, name, original)
