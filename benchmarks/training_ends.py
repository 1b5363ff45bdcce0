"""What a study adds to its steps: at a segment's end a checkpoint and the log, every so often a validation."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.training_cases import Case, images, spec
from benchmarks.training_figures import spread
from benchmarks.training_ways import Over, as_pdml, now, ours
from pdm_lightning.data.module import PDMDataModule
from pdm_lightning.lit import PDMModule
from pdm_lightning.stages.begun import batches
from pdm_lightning.stages.train import Segments

#: Steps of a segment as studies have it, `budget=short`.
SEGMENT = 100
#: Steps of a segment that is measured, and how many there are; the first one sets up what later ones find ready.
STEPS, SEGMENTS = 2, 6


def measure(case: Case, root: str | None, threads: int, clock: str, out: Path) -> dict[str, Any]:
    """Seconds, by the chosen clock, in a process as `ours` has it; checkpoints go to the disk of `out`.

    Returns
    -------
    dict
        ``checkpoint`` and ``validation``: of each segment but the first; ``every``: segments of `SEGMENT` steps from
        one validation to the next.
    """
    with (
        as_pdml(),
        ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool,
    ):
        return pool.submit(_measured, case, root, clock, out).result()


def _measured(case: Case, root: str | None, clock: str, out: Path) -> dict[str, Any]:
    data, told = images(case, root), spec(case, STEPS, STEPS * SEGMENTS)
    every = batches(data, told, SEGMENT).segments_of_validation
    with (
        tempfile.TemporaryDirectory(dir=out) as folder,
        watched(clock) as (saves, looks),
        contextlib.suppress(Over),
    ):
        ours(case, root, lambda *_, **__: None, Path(folder), told)
    return {"checkpoint": saves[1:], "validation": looks[1:], "every": every}


def added(case: Case, rate: float, end: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of what was measured, and the shares that they are of a segment's steps at so many images a second."""
    steps = SEGMENT * case.seen / rate
    line: dict[str, Any] = {"ends n": len(end["checkpoint"]), "every": end["every"]}
    for name, segments in (("checkpoint", 1), ("validation", end["every"])):
        line |= spread(f"{name} ms", [1000 * seconds for seconds in end[name]])
        line |= spread(f"adds {name}", [seconds / (segments * steps) for seconds in end[name]])
    return line


@contextlib.contextmanager
def watched(clock: str) -> Iterator[tuple[list[float], list[float]]]:
    """Have every segment end with a validation; the seconds of checkpoints and of validations, the last ends all."""
    saves: list[float] = []
    looks: list[float] = []
    began = [0.0]
    first, last, save = (
        PDMModule.on_validation_start,
        PDMModule.on_validation_epoch_end,
        Segments.on_train_epoch_end,
    )

    def begin(module: PDMModule) -> None:
        began[0] = now(clock)
        first(module)

    def end(module: PDMModule) -> None:
        last(module)
        looks.append(now(clock) - began[0])

    def saved(segments: Segments, trainer: Any, module: Any) -> None:
        before = now(clock)
        save(segments, trainer, module)
        saves.append(now(clock) - before)
        if len(saves) == SEGMENTS:
            raise Over

    with (
        patch.object(PDMDataModule, "segments_of_validation", 1),
        patch.object(PDMModule, "on_validation_start", begin),
        patch.object(PDMModule, "on_validation_epoch_end", end),
        patch.object(Segments, "on_train_epoch_end", saved),
    ):
        yield saves, looks
