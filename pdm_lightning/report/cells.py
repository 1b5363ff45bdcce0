"""From rows to cells: which rows belong to a cell, and what they say over their seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

from scipy.special import stdtrit

from pdm_lightning.report import formats
from pdm_lightning.report.rows import Row

CLEAN = "none"
#: The threat model of rows that take the worst over several attacks, image by image.
WORST_CASE = "worst_case"
#: With no value in a cell, the most telling status is the one shown.
_PRIORITY = ("failed", "n/a", "refused", "missing")


@dataclass(frozen=True)
class Block:
    """What all cells of one table have in common; an empty field is not part of it."""

    budget: str = ""
    model: str = ""
    threat: str = ""
    detector: str = ""
    bandwidth: str | float = ""

    @property
    def rule(self) -> str:
        """What the bandwidth is before it is scaled: ``validation`` of ``validation x2``."""
        return str(self.bandwidth).partition(" x")[0]

    @property
    def scale(self) -> float:
        """The factor on what the rule gives: 2.0 of ``validation x2``, 1.0 of a plain rule."""
        return float(str(self.bandwidth).partition(" x")[2] or 1.0)


@dataclass(frozen=True)
class Measure:
    """What the rows of one cell say together.

    Attributes
    ----------
    status : str
        ``ok`` if at least one seed has a value, else the most telling of the seeds' statuses.
    value : float or None
        Mean over the seeds that have a value.
    low, high : float or None
        What tests go by: the 95 % interval of a single seed; of several Student's t interval of their mean,
        mean -+ t sd / sqrt(k) with k - 1 degrees of freedom, which may leave the range of a rate. Of seeds that
        do not differ, whose t interval has no width and says nothing, `own_interval`.
    shown : tuple of float or None
        The ends that tables, plots and CSV print, within what the metric can be. They are `low` and `high` but for two
        seeds, whose t interval is nine deviations wide on either side and tells nothing: there they reach from the
        lowest to the highest end of the seeds' own intervals, and are None where a seed has no interval.
    sd : float or None
        Sample standard deviation over seeds (n - 1 in the denominator); None for a single seed.
    seeds, seeds_ok : int
        Seeds in the cell, and those with a value.
    n, n_attacked : tuple of int or None
        Smallest and largest over the seeds.
    notes : tuple of str
        The rows' notes, split at ``;``, each once.
    artifacts : tuple of str
        Keys of the artifacts that the value, or what there is instead, comes from.
    """

    status: str = "missing"
    value: float | None = None
    low: float | None = None
    high: float | None = None
    shown: tuple[float, float] | None = None
    sd: float | None = None
    seeds: int = 0
    seeds_ok: int = 0
    n: tuple[int, int] | None = None
    n_attacked: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()


def aggregate(rows: Iterable[Row]) -> Measure:
    """One :class:`Measure` of the rows of one cell, at most one row a seed (a value before a gap)."""
    by_seed: dict[int, Row] = {}
    for row in rows:
        if row.seed not in by_seed or (row.status == "ok" and by_seed[row.seed].status != "ok"):
            by_seed[row.seed] = row
    if not by_seed:
        return Measure()
    good = [row for row in by_seed.values() if row.status == "ok"]
    shown = good or list(by_seed.values())
    statuses = {row.status for row in shown}
    gap = Measure(
        status=telling(statuses),
        seeds=len(by_seed),
        seeds_ok=len(good),
        n=_span(row.n for row in shown),
        n_attacked=_span(row.n_attacked for row in shown),
        notes=tuple(dict.fromkeys(note for row in by_seed.values() for note in split_note(row.note))),
        artifacts=tuple(dict.fromkeys(row.artifact for row in shown if row.artifact)),
    )
    return _with_value(gap, good) if good else gap


def telling(statuses: Container[str]) -> str:
    """The most telling of the statuses of what has no value; ``ok`` where there is none of them."""
    return next((status for status in _PRIORITY if status in statuses), "ok")


def _with_value(measure: Measure, good: list[Row]) -> Measure:
    values = [float(row.value) for row in good if row.value is not None]
    if len(values) == 1:
        low, high = good[0].ci_low, good[0].ci_high
        return replace(measure, value=values[0], low=low, high=high, shown=_within(good, low, high))
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    low, high = own_interval(good) if alike(mean, sd) else t_interval(mean, sd, len(values))
    shown = _within(good, *(_hull(good) if len(values) == 2 else (low, high)))
    return replace(measure, value=mean, low=low, high=high, shown=shown, sd=sd)


def t_interval(mean: float, sd: float, k: int) -> tuple[float, float]:
    """Student's 95 % interval of the mean of `k` values of sample standard deviation `sd`."""
    half = t_quantile(0.975, k - 1) * sd / math.sqrt(k)
    return mean - half, mean + half


def _within(rows: Sequence[Row], low: float | None, high: float | None) -> tuple[float, float] | None:
    metric = rows[0].metric
    return (
        None if low is None or high is None else (formats.within(metric, low), formats.within(metric, high))
    )


def alike(mean: float, sd: float) -> bool:
    """Whether values differ by rounding alone: their deviation then tells nothing."""
    return sd <= 1e-12 * max(abs(mean), 1.0)


def own_interval(rows: Sequence[Row]) -> tuple[float, float] | tuple[None, None]:
    """The images' interval of a mean over seeds: means of the seeds' own ends, None where one has none.

    Seeds share their test images, and more of them make the chance of these images no smaller.
    """
    lows, highs = _ends(rows)
    return (math.fsum(lows) / len(rows), math.fsum(highs) / len(rows)) if lows else (None, None)


def _hull(rows: Sequence[Row]) -> tuple[float, float] | tuple[None, None]:
    lows, highs = _ends(rows)
    return (min(lows), max(highs)) if lows else (None, None)


def _ends(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Lower and upper ends of the rows' own intervals; none where one of them has none."""
    lows = [row.ci_low for row in rows if row.ci_low is not None]
    highs = [row.ci_high for row in rows if row.ci_high is not None]
    return (lows, highs) if min(len(lows), len(highs)) == len(rows) else ([], [])


def t_quantile(level: float, freedom: int) -> float:
    """Quantile of Student's t distribution."""
    return float(stdtrit(freedom, level))


def _span(numbers: Iterable[int | None]) -> tuple[int, int] | None:
    known = [number for number in numbers if number is not None]
    return (min(known), max(known)) if known else None


def split_note(note: str) -> list[str]:
    """The parts of a note, without surrounding blanks; empty parts are dropped."""
    return [part.strip() for part in note.split(";") if part.strip()]


class Cube:
    """The rows of a study, found by what names them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._cells: dict[tuple[str, ...], list[Row]] = defaultdict(list)
        self._gaps: dict[tuple[str, ...], list[Row]] = defaultdict(list)
        self._collapsed: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for row in self.rows:
            place = (row.budget, row.model, row.data, row.defense, row.attack)
            cell = (row.metric, *place)
            self._cells[cell].append(row)
            if row.status in ("failed", "refused"):
                self._gaps[place].append(row)
            if "collapsed" in split_note(row.note) or (row.metric == "collapsed" and row.value):
                self._collapsed[row.budget, row.model, row.data, row.defense].add(row.seed)

    def measure(self, metric: str, block: Block, data: str, defense: str, attack: str = CLEAN) -> Measure:
        """What the study says of one cell."""
        return aggregate(self.of(metric, block, data, defense, attack))

    def of(self, metric: str, block: Block, data: str, defense: str, attack: str = CLEAN) -> list[Row]:
        """The rows of one cell.

        A row that leaves threat, detector or bandwidth empty holds for all of them, unless a row that
        names them exists; on clean images detector and bandwidth do not matter. What failed or was refused,
        and was recorded for any metric of the cell, holds for every metric that has no row.
        """
        place = (block.budget, block.model, data, defense, attack)
        for rows in (self._cells.get((metric, *place), []), self._gaps.get(place, [])):
            found = (
                [row for row in rows if row.threat in ("", block.threat)]
                if attack == CLEAN
                else _matching(rows, block)
            )
            if found:
                return found
        return []

    def collapsed_seeds(self, block: Block, data: str, defense: str) -> int:
        """How many trainings of this defence ended collapsed."""
        return len(self._collapsed.get((block.budget, block.model, data, defense), ()))

    def select(self, **names: str | float) -> Iterator[Row]:
        """Rows whose columns equal `names`."""
        return (row for row in self.rows if all(getattr(row, key) == value for key, value in names.items()))

    def by_seed(self, metric: str, block: Block, data: str, defense: str, attack: str) -> dict[int, float]:
        """The values of one cell."""
        rows = self.of(metric, block, data, defense, attack)
        return {row.seed: row.value for row in rows if row.value is not None}

    def attacked(self, metric: str, block: Block) -> list[tuple[str, str, str]]:
        """(data, defence, attack) of the cells in `block` that have something to say of `metric`."""
        rows = self.select(budget=block.budget, model=block.model)
        cells = dict.fromkeys((row.data, row.defense, row.attack) for row in rows if row.attack != CLEAN)
        return [cell for cell in cells if self.of(metric, block, *cell)]

    def blocks(self, *, detection: bool) -> list[Block]:
        """The distinct blocks, as first met: of budget and model alone, or with threat and detector.

        With `detection`, a threat without any detector (nothing was scored) is a block as well, so that
        its cells are not lost.
        """
        if not detection:
            return list(dict.fromkeys(Block(row.budget, row.model) for row in self.rows))
        names = [field.name for field in fields(Block)]
        attacked = [row for row in self.rows if row.attack != CLEAN]
        full = dict.fromkeys(Block(**{name: getattr(row, name) for name in names}) for row in attacked)
        covered = {(b.budget, b.model, b.threat) for b in full if b.detector}
        covered |= {(b.budget, b.model, "") for b in full if b.threat}
        return [b for b in full if b.detector or (b.budget, b.model, b.threat) not in covered]


def _matching(rows: list[Row], block: Block) -> list[Row]:
    names = ("threat", "detector", "bandwidth")
    exact = [row for row in rows if all(getattr(row, name) == getattr(block, name) for name in names)]
    return exact or [
        row for row in rows if all(getattr(row, name) in ("", getattr(block, name)) for name in names)
    ]
