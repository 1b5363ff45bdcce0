"""Telling how far a wave is that runs in other processes: by what appears in the store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pdm_lightning.manifest import MANIFEST
from pdm_lightning.store import Store
from pdm_lightning.study.execute import recorded
from pdm_lightning.study.plan import Node

EVERY = 1.0
"""Seconds between two looks."""


@contextmanager
def watching(nodes: Sequence[Node], store: Store, say: Callable[[str], None]) -> Iterator[None]:
    """Say one line for each node that is published, or fails, while the body runs."""
    over = threading.Event()
    before = {node.key: stamp(node, store) for node in nodes}
    watch = threading.Thread(
        target=_watch, args=(list(nodes), store, before, say, over), name="watch", daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(
    nodes: list[Node], store: Store, before: dict[str, int], say: Callable[[str], None], over: threading.Event
) -> None:
    left, done, last = nodes, 0, False
    while left:
        open_ones = []
        for node in left:
            how = _how(node, store, before[node.key])
            if how:
                done += 1
                say(f"[{done}/{len(nodes)}] {node.kind} {node.title}{how}")
            else:
                open_ones.append(node)
        left = open_ones
        if last:  # what came between the last look and the end was looked at, too
            return
        last = over.wait(EVERY)


def _how(node: Node, store: Store, before: int) -> str:
    if stamp(node, store) != before:
        return ": built"
    try:
        failed = recorded(node)
    except OSError as error:
        return f" FAILED: {error}"
    return f" FAILED: {failed.error}" if failed else ""


def stamp(node: Node, store: Store) -> int:
    """When the artifact was published; 0 where there is none."""
    path: Path = store.path(node.kind, node.key) / MANIFEST
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
