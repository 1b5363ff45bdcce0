"""Which cells of a study stand in which of its tables and figures: those whose own ``report`` names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pdm_lightning.report.results import FIGURES, TABLES

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Entry

#: Tables of the whole study, whichever cells ask for them: all numbers, and all that took time.
WHOLE = ("summary", "timings")


def asked(entries: Iterable[Entry], what: str) -> list[str]:
    """The ``tables`` or ``figures`` that cells ask for.

    In the order asked for where all cells ask for the same, else as `TABLES` and `FIGURES` have them: the parts of an
    experiment stand on the page in an order that does not follow from the order of its cells.
    """
    lists = list(dict.fromkeys(tuple(entry.cell.config["report"][what]) for entry in entries))
    words = list(dict.fromkeys(word for words in lists for word in words))
    known = (TABLES if what == "tables" else FIGURES) if len(lists) > 1 else ()
    return [word for word in known if word in words] + [word for word in words if word not in known]


def in_figure(entry: Entry, figure: str) -> bool:
    """Whether a cell asks to stand in a figure."""
    return figure in entry.cell.config["report"]["figures"]


def hidden(entries: Iterable[Entry]) -> dict[str, set[tuple[str, ...]]]:
    """By table, the cells (see `pdm_lightning.report.results.cell_of`) that do not ask for it."""
    entries = list(entries)
    cells: dict[tuple[str, ...], set[str]] = {}
    for entry in entries:
        for cell in _cells(entry):
            cells.setdefault(cell, set()).update(entry.cell.config["report"]["tables"])
    return {
        table: {cell for cell, tables in cells.items() if table not in tables}
        for table in asked(entries, "tables")
        if table not in WHOLE
    }


def _cells(entry: Entry) -> Iterator[tuple[str, ...]]:
    """An entry's model, and its own cell."""
    cell = entry.cell
    model = (
        *(cell.name(group) for group in ("data", "model", "defense", "budget")),
        str(cell.config["seed"]),
    )
    yield model
    yield (*model, *(cell.name(group) for group in ("threat", "attack", "detector")))
