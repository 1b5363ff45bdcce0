"""``pdml detect``: images in, a line for each out, as they are scored."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from pdm_lightning.durable import replacing
from pdm_lightning.guard import Guard, Limits, Scored
from pdm_lightning.guard.source import decoded
from pdm_lightning.guard.walk import find_images
from pdm_lightning.progress import Progress
from pdm_lightning.spoken import several
from pdm_lightning.study.guard_fit import device_of, unreadable
from pdm_lightning.study.guard_models import imported
from pdm_lightning.study.guard_output import writable
from pdm_lightning.study.guard_words import parse

COLUMNS = ("file", "predicted", "probability", "score", "p_value", "flagged")
Write = Callable[[dict[str, Any]], None]


@dataclass
class Count:
    """Images that were scored, flagged, not read, and read but not scored."""

    scored: int = 0
    flagged: int = 0
    unreadable: int = 0
    unscored: int = 0

    @property
    def lost(self) -> int:
        """Images without a line."""
        return self.unreadable + self.unscored


def detect(words: Sequence[str]) -> int:
    """Carry out ``pdml detect``; the exit status is told in its help.

    Raises
    ------
    ValueError, OSError
        In one line, for what cannot be met.
    """
    given = parse("detect", words)
    if given is None:
        return 0
    output = _output(given)
    device = device_of(given)
    guard = Guard.load(given.file, imported(given.imported) if given.imported else None).to(device)
    threshold = guard.threshold if given.threshold is None else given.threshold
    usual, held = "", guard.provenance.held_out
    if given.threshold is None and held is not None and held.interval.value is not None:
        usual = f"; of {held.n:,} held-out clean images {100 * held.interval.value:.1f} % were"
    elif given.threshold is None:
        usual = f"; of clean images about {100 * guard.fpr:g} % are"
    if given.fpr is not None:
        threshold = guard.threshold_at(given.fpr)
        usual = f"; of clean images about {100 * given.fpr:g} % are"
    count = Count()
    try:
        with warnings.catch_warnings(), _opened(output) as stream:
            warnings.filterwarnings("ignore", module="PIL")
            _run(guard, given, threshold, stream, count)
    except KeyboardInterrupt:
        left = f"; what was scored is in {output}.new" if output else ""
        print(f"pdml: stopped after {several(count.scored, 'image')}{left}", file=sys.stderr)
        return 130
    if not count.scored and not count.lost:
        raise FileNotFoundError(f"no images in {' '.join(given.images)}")
    print(_summary(count, usual), file=sys.stderr)
    return 3 if given.fail_on_flag and count.flagged else int(count.lost > 0)


def _output(given: argparse.Namespace) -> Path | None:
    """Where to write; neither the guard nor an image is overwritten."""
    if given.output is None:
        return None
    return writable("--output", given.output, [Path(word) for word in (given.file, *given.images)])


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or the file, which gets its name when it is whole; names need not be UTF-8."""
    if output is None:
        if sys.stdout is None:
            raise ValueError("standard output is closed: name a file, as --output scores.csv")
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="surrogateescape")
        yield sys.stdout
        return
    with (
        replacing(output) as new,
        new.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file


def _run(guard: Guard, given: argparse.Namespace, threshold: float, stream: TextIO, count: Count) -> None:
    write = _csv(stream) if given.format == "csv" else _jsonl(stream)
    listed = _listed(sys.stdin, given.null) if "-" in given.images else iter(())
    paths = enumerate(find_images(given.images, listed))
    with Progress(None, "images") as progress:
        for part in decoded(paths, guard.preprocessing, given.batch, Limits(pixels=given.max_pixels)):
            good = [(path, image) for _, path, image in part if isinstance(image, Tensor)]
            if good:
                images = torch.stack([image for _, image in good])
                scored = guard.score(images, threshold=threshold, batch=given.batch)
                for row in _rows([path for path, _ in good], scored, guard.classes):
                    if math.isfinite(row["score"]):
                        write(row)
                        count.scored += 1
                        count.flagged += row["flagged"]
                    else:
                        why = "the classifier's outputs are not finite"
                        unreadable(row["file"], why, "score")
                        count.unscored += 1
                stream.flush()
            for _, path, error in part:
                if not isinstance(error, Tensor):
                    unreadable(path, str(error))
                    count.unreadable += 1
            progress.update(len(part), flagged=count.flagged)


def _listed(stream: TextIO | None, null: bool) -> Iterator[str]:
    """Names of a list, as they come: one a line, or each before a NUL byte."""
    if stream is None:
        raise ValueError(
            "-: standard input is closed: give a list of names, as find ... | pdml detect FILE -"
        )
    if not null:
        yield from (os.fsdecode(line.rstrip(b"\r\n")) for line in stream.buffer)
        return
    left = b""
    while part := stream.buffer.read1(2**16):  # type: ignore[attr-defined]
        *names, left = (left + part).split(b"\0")
        yield from map(os.fsdecode, names)
    yield os.fsdecode(left)


def _rows(paths: Sequence[str], scored: Scored, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    columns = (scored.predicted, scored.probability, scored.score, scored.p_value, scored.flagged)
    for path, values in zip(paths, zip(*(column.tolist() for column in columns), strict=True), strict=True):
        yield dict(zip(COLUMNS, (path, classes[values[0]], *values[1:]), strict=True))


def _csv(stream: TextIO) -> Write:
    print(",".join(COLUMNS), file=stream)
    return lambda row: print(",".join(_field(value) for value in row.values()), file=stream)


def _field(value: Any) -> str:
    """A field of CSV; the csv module of Python 3.10 leaves a lone carriage return, which ends a row, unquoted."""
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _jsonl(stream: TextIO) -> Write:
    return lambda row: print(json.dumps(row), file=stream)


def _summary(count: Count, usual: str) -> str:
    share = f" ({100 * count.flagged / count.scored:.1f} %{usual})" if count.scored else ""
    lost = f", {count.unreadable} unreadable" if count.unreadable else ""
    lost += f", {count.unscored} not scored" if count.unscored else ""
    return f"{several(count.scored, 'image')}, {count.flagged} flagged{share}{lost}"
