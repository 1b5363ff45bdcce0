"""Sizes, times and tables as people read them; nothing here takes long to import."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``12 s``, ``3.5 min``, ``2.1 h``, ``3.2 d``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"


def size(count: float) -> str:
    """Bytes as people say them: ``512 B``, ``1.4 kB``, ``23.0 MB``, ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Let loggers say errors only, until the end of the ``with`` block.

    Parameters
    ----------
    *loggers : str
        Names, such as ``pdm_lightning.store``.
    """
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def several(count: int, one: str, many: str = "") -> str:
    """``1 artifact``, ``12 artifacts``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left_out: Iterable[str] = (),
    right: Iterable[str] = (),
) -> list[str]:
    """Lines of a table: columns as wide as their widest entry, the last one as it is.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : sequence of sequence of str
    left_out : iterable of str
        Columns that are not shown.
    right : iterable of str
        Columns of numbers, which end at the same place.
    """
    left_out, right = set(left_out), set(right)
    shown = [place for place, name in enumerate(head) if name not in left_out]
    whole = [head, *rows]
    widths = {place: max(len(row[place]) for row in whole) for place in shown}
    form = "  ".join(f"{{{place}:{'>' if head[place] in right else '<'}{widths[place]}}}" for place in shown)
    return [form.format(*row).rstrip() for row in whole]
