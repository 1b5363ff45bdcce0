"""Crafting shared among processes: each attacks batches of its own and leaves them in the same folder.

No process waits for another and nothing is sent between them, so there is no process group: what one has finished
is a file that counts, whatever becomes of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdm_lightning.crew import Crew, Say
from pdm_lightning.devices import several, share_of_threads
from pdm_lightning.progress import Progress
from pdm_lightning.store import Store

if TYPE_CHECKING:
    from pdm_lightning.stages.context import Context
    from pdm_lightning.stages.engine import Engine
    from pdm_lightning.study.plan import Node


@contextmanager
def as_one_of(device: torch.device, count: int) -> Iterator[None]:
    """Compute with the threads that one of `count` processes will have."""
    before = torch.get_num_threads()
    torch.set_num_threads(share_of_threads(device, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(
    node: Node,
    folder: Path,
    context: Context,
    parts: Sequence[Tensor],
    engine: Engine,
    progress: Progress,
) -> None:
    """Have ``runtime.devices`` processes attack the batches `parts`, the r-th, (r + N)-th, ... by process r.

    Raises
    ------
    Exception
        The first error of a process; the others are ended, and finished batches stay.
    pdm_lightning.crew.WorkerFailed
        Where a process was killed.
    ValueError
        Where there are too few devices.
    """
    count = min(int(node.runtime["devices"]), len(parts))
    places = several(context.devices(node), count, "craft.devices")
    threads = share_of_threads(places[0], count)
    with Crew("craft", advice="run again, with a smaller craft.batch_size or fewer craft.devices") as crew:
        for rank, place in enumerate(places):
            share = list(parts[rank::count])
            crew.start(_work, node, folder, context.store.root, str(place), threads, share, engine)
        for done in crew:
            progress.update(done)


def _work(
    say: Say,
    node: Node,
    folder: Path,
    root: Path,
    place: str,
    threads: int,
    parts: list[Tensor],
    engine: Engine,
) -> None:
    """One process: attack the batches and say how many images are done."""
    from pdm_lightning.stages.context import Context
    from pdm_lightning.stages.craft import craft_parts

    torch.set_num_threads(threads)

    def show(done: int, **_: Any) -> None:
        if done:
            say(done)

    craft_parts(node, folder, Context(Store(root), progress=False), torch.device(place), parts, engine, show)
