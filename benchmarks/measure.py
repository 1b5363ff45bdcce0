"""One implementation after the other, in turns: what it finds, what it costs, what is wrong with it."""

from __future__ import annotations

import copy
import gc
import io
import random
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.checks import Fault, InFloat64, ModelState, coupling_faults, image_faults
from benchmarks.entries import Claim, Entry, Ready
from benchmarks.families import Family
from benchmarks.judge import Verdict, judge
from benchmarks.machine import CLOCKS, without_paths
from benchmarks.passes import counted
from benchmarks.subjects import Subject


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes
    ----------
    rounds
        Timed runs of each implementation, taken in turns.
    limit
        Seconds: a longer run is not repeated.
    clock
        "wall", or "cpu": processor time of this process, which other work on the machine disturbs less.
    trainable
        Hand the models over with parameters that require gradients, as a training leaves them; False: frozen.
    seed
        Set before every run.
    alone
        Images that are also attacked one by one, in search of a dependence on batch mates; 0: no such search, and
        none for what is left on a trainable model.
    probe
        Model and images of that search; None: the first 16 of those that are measured. A small model saves time:
        whether images depend on each other is a matter of the implementation.
    """

    rounds: int = 3
    limit: float = 10.0
    clock: str = "wall"
    trainable: bool = True
    seed: int = 0
    alone: int = 8
    probe: Subject | None = None


@dataclass
class Row:
    """Measured figures of one implementation; seconds are of all images together."""

    family: Family
    entry: Entry
    n: int
    verdict: Verdict | None = None
    forwards: float = 0.0
    backwards: float = 0.0
    build_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    error: str = ""

    @property
    def time(self) -> float:
        """Seconds of the fastest round; infinite where there is none."""
        return min(self.seconds, default=float("inf"))


def measure(
    family: Family,
    entries: Sequence[Entry],
    subject: Subject,
    options: Options,
    report: Callable[[str], None],
) -> list[Row]:
    """Measure all implementations of a family on the same model and images.

    A first run is counted and judged; then rounds over all implementations in turns, of which the fastest counts.
    What an implementation raises becomes its row.
    """
    rows, ready = [], {}
    for entry in entries:
        row = Row(family, entry, len(subject.x))
        rows.append(row)
        report(f"{family.key}: {entry.label}")
        try:
            ready[entry.label] = _first(row, subject, options)
            if options.alone:
                row.faults += _small(row, options.probe or subject, options)
        except Exception as error:  # whatever a library raises is a result
            ready.pop(entry.label, None)
            row.error = _line(error)
    _rounds([row for row in rows if not row.error], ready, subject, options, report)
    return rows


def goals(family: Family, y: Tensor, classes: int) -> Tensor | None:
    """(n,) the class after each label in a targeted family, else None."""
    return (y + 1) % classes if family.targeted else None


def _first(row: Row, subject: Subject, options: Options) -> tuple[Ready, nn.Module]:
    """Build it, run it once, count and judge."""
    model = handed(subject.model, options.trainable)
    started = time.perf_counter()
    ready = row.entry.build(model, subject.x)
    row.build_seconds = time.perf_counter() - started
    goal = goals(row.family, subject.y, _classes(subject))
    state = ModelState(model)
    with counted((model, *ready.copies)) as passes:
        claim, seconds = run(ready, model, subject.x, subject.y, goal, options)
    row.faults += state.faults()
    row.forwards, row.backwards = passes.forwards / row.n, passes.backwards / row.n
    row.verdict = judge(subject.model, row.family, subject.x, subject.y, goal, claim)
    row.faults += image_faults(row.family, row.verdict)
    if seconds > options.limit or not options.rounds:
        row.seconds.append(seconds)
    return ready, model


def _rounds(
    rows: Sequence[Row],
    ready: dict[str, tuple[Ready, nn.Module]],
    subject: Subject,
    options: Options,
    report: Callable[[str], None],
) -> None:
    goal = goals(rows[0].family, subject.y, _classes(subject)) if rows else None
    fast = [row for row in rows if not row.seconds]
    for number in range(options.rounds):
        report(f"{rows[0].family.key if rows else ''}: round {number + 1} of {options.rounds}")
        gc.collect()
        for row in fast:
            attack, model = ready[row.entry.label]
            ModelState(model)  # clears gradients that the last run left
            try:
                row.seconds.append(run(attack, model, subject.x, subject.y, goal, options)[1])
            except Exception as error:
                row.error = _line(error)


def _small(row: Row, subject: Subject, options: Options) -> list[Fault]:
    """A few images, the model in float64 and trainable: batch mates, and traces on the model."""
    try:
        return _traces(row, subject, options, torch.float64)
    except Exception:  # a library may know float32 alone; what it raises then is its row
        return _traces(row, subject, options, torch.float32)


def _traces(row: Row, subject: Subject, options: Options, dtype: torch.dtype) -> list[Fault]:
    x, y = subject.x[:16].to(dtype), subject.y[:16]
    model = InFloat64(handed(subject.model, trainable=True)).eval()
    state = ModelState(model)
    ready = row.entry.build(model, x)

    def attack(x: Tensor, y: Tensor, goal: Tensor | None) -> Claim:
        return run(ready, model, x, y, goal, options)[0]

    faults = coupling_faults(attack, x, y, goals(row.family, y, _classes(subject)), options.alone)
    known = {fault.kind for fault in row.faults}
    return faults + [fault for fault in state.faults() if fault.kind not in known]


def run(
    ready: Ready, model: nn.Module, x: Tensor, y: Tensor, goal: Tensor | None, options: Options
) -> tuple[Claim, float]:
    """One run on copies of the images, silent, from fixed random numbers; with its seconds.

    Everybody's seconds end with the knowledge of which images are successes: where an implementation does not say,
    the model is asked, with a forward pass of all images.
    """
    clock = CLOCKS[options.clock]
    x, y, goal = x.clone(), y.clone(), None if goal is None else goal.clone()
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    np.random.seed(options.seed)  # noqa: NPY002 - the generator that libraries draw from
    with redirect_stdout(io.StringIO()):
        started = clock()
        claim = ready.run(x, y, goal)
        if claim.success is None:
            with torch.no_grad():
                model(claim.x_adv.to(x.dtype)).argmax(dim=1)
        return claim, clock() - started


def handed(model: nn.Module, trainable: bool) -> nn.Module:
    """A copy in eval mode of its own for each implementation, so that none suffers from another."""
    return Whole(copy.deepcopy(model)).eval().requires_grad_(trainable)


class Whole(nn.Module):
    """A network in one piece: a library that walks through the layers of an ``nn.Sequential`` evades the count."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, C, H, W) to logits (n, K)."""
        logits: Tensor = self.model(x)
        return logits


def _classes(subject: Subject) -> int:
    with torch.no_grad():
        return int(subject.model(subject.x[:1]).shape[1])


def _line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return without_paths(f"{type(error).__name__}: {first}")[:200]
