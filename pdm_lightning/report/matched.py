"""Which results of two studies belong together: everything is the same but what is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pdm_lightning.report import formats
from pdm_lightning.report.cells import CLEAN, Measure, aggregate
from pdm_lightning.report.contrast import Contrast, over_seeds, unpaired
from pdm_lightning.report.rows import Row

#: Columns that name a cell, in the order in which they are printed.
NAMES = ("data", "model", "budget", "defense", "threat", "attack", "detector", "bandwidth", "seed")
#: The difference of two rows on the same images, or why there is none.
ByImage = Callable[[Row, Row], Contrast | str]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """One cell of both studies.

    Attributes
    ----------
    names : dict of str
        Its columns, those of `NAMES` but the seed; of what is compared ``A's | B's``.
    metric : str
    a, b : Measure
        Over the seeds that have a value in both; where none has, over all.
    contrast : Contrast
        A minus B.
    artifacts : tuple of str
        Keys of A's and of B's artifacts, each once.
    """

    names: dict[str, str]
    metric: str
    a: Measure
    b: Measure
    contrast: Contrast
    artifacts: tuple[str, str]


@dataclass(frozen=True)
class Matched:
    """Rows of two studies side by side.

    Attributes
    ----------
    compared : dict of (str, str)
        Columns that have one value in A and another one in B: what is compared.
    cells : list of (Row lists)
        The rows of A and of B that belong to one cell, seed by seed.
    alone : list of (str, Row)
        ``a`` or ``b``, and a row of it that the other one does not have.
    """

    compared: dict[str, tuple[str, str]]
    cells: list[tuple[list[Row], list[Row]]]
    alone: list[tuple[str, Row]]


def values(rows: Iterable[Row], column: str) -> list[str]:
    """The distinct names in a column, in order, without those that say that there is none."""
    named = (str(getattr(row, column)) for row in rows)
    return [name for name in dict.fromkeys(named) if name and not (column == "attack" and name == CLEAN)]


def what_differs(a: Sequence[Row], b: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """The columns that have one value in all of A and another one in all of B."""
    found = {column: (values(a, column), values(b, column)) for column in NAMES}
    return {
        column: (first[0], second[0])
        for column, (first, second) in found.items()
        if len(first) == len(second) == 1 and first != second
    }


def match(a: Sequence[Row], b: Sequence[Row]) -> Matched:
    """Put the rows of two studies side by side, in the order of A.

    Rows belong to one cell where the metric and all of `NAMES` agree, but for seed and what is compared.
    """
    compared = what_differs(a, b)
    first, second = (_by_cell(rows, compared) for rows in (a, b))
    cells = []
    for key, by_seed in first.items():
        seeds = [seed for seed in by_seed if seed in second.get(key, {})]
        if seeds:
            cells.append(([by_seed[seed] for seed in seeds], [second[key][seed] for seed in seeds]))
    kept = {id(row) for pair in cells for side in pair for row in side}
    alone = [(side, row) for side, rows in (("a", a), ("b", b)) for row in rows if id(row) not in kept]
    return Matched(compared, cells, alone)


def _by_cell(rows: Iterable[Row], compared: Iterable[str]) -> dict[Key, dict[int, Row]]:
    found: dict[Key, dict[int, Row]] = {}
    for row in rows:
        place = [_matched_on(row, column, column in compared) for column in NAMES if column != "seed"]
        found.setdefault((row.metric, *place), {})[0 if "seed" in compared else row.seed] = row
    return found


def _matched_on(row: Row, column: str, compared: bool) -> str:
    """What has to agree in a column: its name; of what is compared, whether there is one (clean images have none)."""
    name = str(getattr(row, column))
    return str(bool(values([row], column))) if compared else name


def repeated(rows: Iterable[Row]) -> Row | None:
    """A row whose cell another one has already: such a table cannot be matched."""
    seen: set[Key] = set()
    for row in rows:
        key = (row.metric, *(str(getattr(row, column)) for column in NAMES))
        if key in seen:
            return row
        seen.add(key)
    return None


def is_difference(row: Row) -> bool:
    """Whether a row is a difference from another cell already: these are not compared once more."""
    return formats.difference_of(row.metric) is not None


def pair(cell: tuple[list[Row], list[Row]], by_image: ByImage) -> Pair:
    """What a cell says in A and in B, and the difference.

    Parameters
    ----------
    cell : pair of lists of Row
        From `match`.
    by_image : callable
        Called for a seed that has a value in both.
    """
    both = list(zip(*cell, strict=True))
    good = [(a, b) for a, b in both if a.value is not None and b.value is not None]
    firsts, seconds = zip(*(good or both), strict=True)
    a, b = aggregate(firsts), aggregate(seconds)
    if len(good) > 1:
        contrast = _seeds(good, by_image)
    elif good:
        found = same(*good[0]) or by_image(*good[0])
        contrast = unpaired(a, b, found) if isinstance(found, str) else found
    else:
        contrast = unpaired(a, b)
    keys = [
        " ".join(dict.fromkeys(row.artifact for row in side if row.artifact)) for side in (firsts, seconds)
    ]
    return Pair(_names(both[0]), firsts[0].metric, a, b, contrast, (keys[0], keys[1]))


def same(a: Row, b: Row) -> Contrast | None:
    """No difference, where both rows are one and the same result."""
    one = a.artifact and a.artifact == b.artifact and a.value == b.value
    return Contrast("same", 0.0, n=a.n) if one else None


def _seeds(rows: list[tuple[Row, Row]], by_image: ByImage) -> Contrast:
    """Over the seeds: differences on the same images, or, where one seed has none, of the values."""
    found = [same(a, b) or by_image(a, b) for a, b in rows]
    known = [one.value for one in found if isinstance(one, Contrast) and one.value is not None]
    if len(known) == len(rows):
        return over_seeds(known)
    why = next((one for one in found if isinstance(one, str)), "too few images in common")
    plain = [a.value - b.value for a, b in rows if a.value is not None and b.value is not None]
    return over_seeds(plain, why)


def _names(rows: tuple[Row, Row]) -> dict[str, str]:
    told = {}
    for column in NAMES[:-1]:
        names = dict.fromkeys(str(getattr(row, column)) for row in rows)
        told[column] = " | ".join(names)
    return told
