"""Ways to train, each in a process of its own that takes turns with the others."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.training_cases import Case, images, spec
from pdm_lightning.lit import PDMModule
from pdm_lightning.pace import held_memory
from pdm_lightning.replicas import ALONE
from pdm_lightning.seeding import derive
from pdm_lightning.stages import train as stage
from pdm_lightning.stages.begun import batches, begin
from pdm_lightning.stages.build import build_classifier, build_loss

#: The names of the ways: ours, in float32 and in bfloat16; forward and backward alone in two layouts; the usual
#: pipeline with so many workers.
OURS, BF16, BARE, USUAL = (
    "ours",
    "ours, bf16",
    ("bare, contiguous", "bare, channels last"),
    ("usual, 0 workers", "usual, 2 workers"),
)
WAYS = (OURS, BF16, *BARE, *USUAL)
#: Steps that are not measured at the beginning of a turn; workers that load have as much in stock.
WARM = 5


def possible() -> tuple[str, ...]:
    """The ways that this processor has instructions for."""
    # earlier versions of PyTorch do not tell
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    bf16 = known.get("amx_bf16") or known.get("avx512_bf16")
    return tuple(way for way in WAYS if bf16 or way != BF16)


@dataclass(frozen=True)
class Turn:
    """Seconds of so many steps by the chosen clock and by the wall's, and, of ours, of the parts that they have."""

    steps: int
    seconds: float
    wall: float
    parts: dict[str, float]


class Over(BaseException):
    """Ends a training."""


class Steps:
    """Called after each step: waits for a turn, and measures as many steps as last long enough.

    Parameters
    ----------
    line
        To the process that says whose turn it is: (steps that are not measured, least seconds) in, `Turn` out.
    clock
        "wall", or "cpu": processor time of this process and of those that load for it.
    parts
        Seconds by name since the process began, by the wall clock.
    """

    def __init__(self, line: Connection, clock: str, parts: dict[str, float]) -> None:
        self.line, self.clock, self.parts = line, clock, parts
        self.steps, self.warm, self.least = 0, 0, 0.0
        self.began, self.wall, self.before = 0.0, 0.0, dict(parts)

    def wait(self) -> None:
        """For the next turn; `Over` where there is none."""
        try:
            message = self.line.recv()
        except (EOFError, OSError):
            message = None
        if message is None:
            raise Over
        self.warm, self.least = message
        self.steps = 0
        self._mark()

    def __call__(self, steps: int = 1, **_: Any) -> None:
        """Count a step."""
        if not steps:
            return
        self.steps += 1
        if self.steps == self.warm:
            self._mark()
        seconds, measured = now(self.clock) - self.began, self.steps - self.warm
        if measured >= 2 and seconds >= self.least:
            parts = {name: value - self.before.get(name, 0.0) for name, value in self.parts.items()}
            self.line.send(Turn(measured, seconds, time.perf_counter() - self.wall, parts))
            self.wait()

    def _mark(self) -> None:
        self.began, self.wall, self.before = now(self.clock), time.perf_counter(), dict(self.parts)


def now(clock: str) -> float:
    """Seconds of a clock; processor time is that of this process and of its children's first threads."""
    if clock == "wall":
        return time.perf_counter()
    total = time.process_time()
    for child in active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


@contextlib.contextmanager
def as_pdml() -> Iterator[None]:
    """Processes that begin in it have memory as those of pdml have it."""
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("THP_MEM_ALLOC_ENABLE")


class Runner:
    """A way in a process of its own, which trains one case after the other."""

    def __init__(self, way: str, threads: int, clock: str) -> None:
        context = get_context("spawn")
        self.way = way
        self.line, other = context.Pipe()
        # not a daemon: it has processes of its own
        self.process = context.Process(target=work, args=(other, way, threads, clock))
        with contextlib.nullcontext() if way in USUAL else as_pdml():
            self.process.start()
        other.close()

    def begin(self, case: Case, root: str | None) -> None:
        """Have it begin a training, and wait for its first turn."""
        self._send((case, root))

    def turn(self, seconds: float, warm: int) -> Turn:
        """Let it train for at least so many seconds.

        Raises
        ------
        RuntimeError
            If it failed, or its process ended.
        """
        self._send((warm, seconds))
        try:
            found = self.line.recv()
        except (EOFError, OSError):
            found = "its process ended"
        if not isinstance(found, Turn):
            raise RuntimeError(f"{self.way}: {found}")
        return found

    def end(self) -> None:
        """Have it end the training."""
        self._send(None)

    def close(self) -> None:
        """End the process."""
        self.line.close()
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()

    def _send(self, message: object) -> None:
        # where its process ended the next turn tells, and has what it may have left to be read
        with contextlib.suppress(OSError):
            self.line.send(message)


def work(line: Connection, way: str, threads: int, clock: str) -> None:
    """What the process does until its line is closed."""
    torch.set_num_threads(threads)
    while True:
        try:
            case, root = line.recv()
        except (EOFError, OSError):
            return
        try:
            with contextlib.suppress(Over), tempfile.TemporaryDirectory() as folder:
                _train(way, case, root, line, clock, Path(folder))
        except Exception as error:
            line.send(f"{type(error).__name__}: {' '.join(str(error).split())}")
            return


def _train(way: str, case: Case, root: str | None, line: Connection, clock: str, folder: Path) -> None:
    parts: dict[str, float] = {}
    steps = Steps(line, clock, parts)
    images(case, root)
    steps.wait()
    if way in (OURS, BF16):
        told = spec(case, precision="bf16" if way == BF16 else "float32")
        with timed(parts):
            ours(case, root, steps, folder, told)
    elif way in BARE:
        bare(case, root, way == BARE[1], steps)
    else:
        from benchmarks.training_usual import train

        train(case, root, 2 * USUAL.index(way), steps, folder)


def ours(
    case: Case,
    root: str | None,
    step: Callable[..., object],
    folder: Path,
    told: dict[str, Any] | None = None,
) -> None:
    """Train as the stage does, whose progress is told to `step`; in one segment, unless `told` is another `spec`."""
    data = images(case, root)
    begun = begin(data, told or spec(case), folder)
    stage.proceed(data, begun, [torch.device("cpu")], ALONE, (), step, None)


def bare(case: Case, root: str | None, channels_last: bool, step: Callable[[int], object]) -> None:
    """Forward and backward of the same network, loss and first batch, in memory as float32; nothing else."""
    data, told = images(case, root), spec(case)
    module = batches(data, told)
    batch = module.on_after_batch_transfer(module.batch_at(0))
    torch.manual_seed(derive(told["seed"], "init"))
    classifier = build_classifier(told, data.num_classes, data.shape[0]).train()
    if channels_last:
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lit = PDMModule(classifier, build_loss(told["defense"]), told["optimizer"], 1)
    with held_memory():
        while True:
            classifier.zero_grad()
            lit.loss(lit._outputs(batch))[0].backward()
            step(1)


@contextlib.contextmanager
def timed(parts: dict[str, float]) -> Iterator[None]:
    """Add up the seconds of the parts of our step."""
    from pdm_lightning.data.module import PDMDataModule

    places: list[tuple[Any, str, str]] = [
        (PDMDataModule, "batch_at", "gather"),
        (PDMDataModule, "on_after_batch_transfer", "augment"),
        (PDMModule, "_outputs", "forward"),
        (PDMModule, "training_step", "step"),
        (torch.Tensor, "backward", "backward"),
        (torch, "_fused_adamw_", "optimizer"),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in places]

    def watched(original: Any, part: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                parts[part] = parts.get(part, 0.0) + time.perf_counter() - began

        return call

    try:
        for (owner, name, part), (_, _, original) in zip(places, originals, strict=True):
            parts[part] = 0.0
            setattr(owner, name, watched(original, part))
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
