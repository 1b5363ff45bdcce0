"""A table before it is rendered: the same object becomes HTML, Markdown, LaTeX and terminal text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pdm_lightning.report import formats
from pdm_lightning.report.cells import Block, Cube, Measure
from pdm_lightning.report.results import StudyResult

DAGGER, DOUBLE_DAGGER, EN_DASH, PLUS_MINUS = "†", "‡", "\u2013", "±"
#: Digits of an artifact's key that a table shows.
SHORT_KEY = 8
#: How a cell without a value is printed.
GAPS = {"n/a": "n/a", "failed": "failed", "missing": "missing", "refused": EN_DASH}
_GAP_FOOTNOTES = {
    "n/a": "n/a: too few examples to say; n is how many there were.",
    "failed": "failed: the computation raised an error; the failures are listed with the study's report.",
    "missing": "missing: not computed in this study.",
    "refused": f"{EN_DASH}: refused, because the threat model withholds what the attack asks for.",
}


@dataclass(frozen=True)
class Strip:
    """The numbers behind a cell, for the small interval strip of the page."""

    value: float
    low: float | None = None
    high: float | None = None
    paper: float | None = None


@dataclass(frozen=True)
class Cell:
    """One cell, as text: value, interval, n, further details, the paper's number, footnote marks.

    A `warning` is printed wherever the value is, also where there is no room for details. `keys` are those of the
    artifacts behind it; a cell that `is_key` shows their beginnings alone.
    """

    value: str = ""
    interval: str = ""
    n: str = ""
    details: tuple[str, ...] = ()
    paper: str = ""
    marks: str = ""
    warning: str = ""
    status: str = "ok"
    sort: float | None = None
    strip: Strip | None = None
    keys: tuple[str, ...] = ()
    is_key: bool = False


@dataclass(frozen=True)
class Column:
    """A column: the group it stands under (may be empty), its label, and the scale of its strips."""

    label: str
    group: str = ""
    scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class TableRow:
    """A row: its label with footnote marks, its cells, and the section it stands in (may be empty)."""

    label: str
    cells: list[Cell]
    marks: str = ""
    section: str = ""


@dataclass
class Table:
    """A table with its caption and footnotes.

    `name` is a file stem, unique in a report; `strip_of` is what the dots of the strips are, for their legend. With
    `intervals`, the terminal prints them as well, on lines of their own.
    """

    name: str
    kind: str
    title: str
    caption: str
    row_header: str
    columns: list[Column]
    rows: list[TableRow]
    footnotes: list[str] = field(default_factory=list)
    strip_legend: str = ""
    strip_of: str = "this study"
    intervals: bool = False


class Footnotes:
    """Collects what the marks and gaps of one table mean, while its cells are made.

    `gaps` are a table's own words for gaps, by status.
    """

    def __init__(self, gaps: Mapping[str, str] | None = None) -> None:
        self._words = _GAP_FOOTNOTES | dict(gaps or {})
        self._capped: dict[str, dict[str, list[str]]] = {}
        self._collapsed: dict[str, None] = {}
        self._gaps: set[str] = set()
        self._other: dict[str, None] = {}

    def capped(self, attack: str, note: str, where: str) -> None:
        """An attack that ran on fewer images or iterations than it declares, on data set `where`."""
        places = self._capped.setdefault(attack, {}).setdefault(note, [])
        if where not in places:
            places.append(where)

    def collapsed(self, where: str) -> None:
        """A training that ended with merged classes."""
        self._collapsed[where] = None

    def gap(self, status: str) -> None:
        """A cell without a value."""
        self._gaps.add(status)

    def add(self, text: str) -> None:
        """Any other footnote, shown first."""
        self._other[text] = None

    def lines(self) -> list[str]:
        """The footnotes in a fixed order: general ones, daggers, gaps."""
        lines = list(self._other)
        for places, attacks in _same_caps(self._capped).items():
            verb = "was" if len(attacks) == 1 else "were"
            lines.append(f"{DAGGER} {formats.words(attacks)} {verb} capped: {places}.")
        if self._collapsed:
            where = "; ".join(self._collapsed)
            lines.append(
                f"{DOUBLE_DAGGER} The training collapsed (classes merged in the embedding): {where}."
            )
        return lines + [text for status, text in self._words.items() if status in self._gaps]


def _same_caps(capped: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    """Attacks by what was capped of them; the data set is named where the caps differ between sets."""
    attacks: dict[str, list[str]] = {}
    for attack, by_note in capped.items():
        notes = []
        for note, places in by_note.items():
            where = f" ({formats.words(places)})" if len(by_note) > 1 else ""
            notes.append(note.removeprefix("capped").lstrip(": ") + where)
        attacks.setdefault("; ".join(notes), []).append(attack)
    return attacks


def make_cell(
    metric: str,
    measure: Measure,
    footnotes: Footnotes,
    *,
    details: Iterable[str] = (),
    paper: float | None = None,
    marks: str = "",
    warning: str = "",
) -> Cell:
    """The cell that prints `measure` as `metric` is printed; `paper` is the published number, if any."""
    paper_text = "" if paper is None else _paper_text(metric, paper)
    details = tuple(details)
    if measure.status != "ok" or measure.value is None:
        footnotes.gap(measure.status)
        text = GAPS[measure.status]
        if measure.status == "n/a" and measure.n:
            text += f" (n={span(measure.n)})"
        return Cell(
            text,
            details=details,
            paper=paper_text,
            marks=marks,
            warning=warning,
            status=measure.status,
            keys=measure.artifacts,
        )
    if measure.seeds > 1:
        seeds = (
            f"{measure.seeds_ok} of {measure.seeds}"
            if measure.seeds_ok < measure.seeds
            else f"{measure.seeds}"
        )
        details = (f"{seeds} seeds", *details)
    low, high = measure.shown or (None, None)
    return Cell(
        value=formats.metric_value(metric, measure.value),
        interval=_interval(metric, measure),
        n=span(measure.n) if measure.n else "",
        details=details,
        paper=paper_text,
        marks=marks,
        warning=warning,
        sort=measure.value,
        strip=Strip(measure.value, low, high, paper),
        keys=measure.artifacts,
    )


def key_cell(keys: tuple[str, ...]) -> Cell:
    """The cell that shows the beginnings of artifacts' keys, which name them to ``pdml store show``."""
    return Cell(" ".join(key[:SHORT_KEY] for key in keys), keys=keys, is_key=True)


def collapse_marks(
    result: StudyResult, cube: Cube, footnotes: Footnotes, block: Block, data: str, defense: str
) -> str:
    """The double dagger of a collapsed training, with its footnote, or nothing."""
    collapsed = cube.collapsed_seeds(block, data, defense)
    if not collapsed:
        return ""
    where = f"{result.label('defense', defense)} on {result.label('data', data)}"
    footnotes.collapsed(where if collapsed == 1 else f"{where}, {collapsed} seeds")
    return DOUBLE_DAGGER


def capped_marks(
    result: StudyResult, footnotes: Footnotes, measures: Iterable[tuple[str, Measure]], attack: str
) -> str:
    """The dagger of an attack that was capped on any of the (data, measure), with its footnote."""
    mark = ""
    for data, measure in measures:
        for note in measure.notes:
            if note.startswith("capped"):
                footnotes.capped(result.label("attack", attack), note, result.label("data", data))
                mark = DAGGER
    return mark


def scale_of(strips: Iterable[Strip], floor: float, ceiling: float) -> tuple[float, float]:
    """A scale that holds every strip: `floor` to `ceiling`, or from 0 where a number is below `floor`."""
    numbers = [number for s in strips for number in (s.value, s.low, s.paper) if number is not None]
    return (floor if all(number >= floor for number in numbers) else 0.0, ceiling)


def span(n: tuple[int, int]) -> str:
    """``512``, or ``480 to 512`` where seeds differ."""
    low, high = (formats.count(number) for number in n)
    return low if low == high else f"{low} to {high}"


def _interval(metric: str, measure: Measure) -> str:
    ends = (formats.metric_bound(metric, end) for end in measure.shown or ())
    bounds = f"[{', '.join(ends)}]" if measure.shown else ""
    if measure.sd is None:
        return bounds
    return f"{PLUS_MINUS} {formats.metric_deviation(metric, measure.sd)} {bounds}".rstrip()


def _paper_text(metric: str, paper: float) -> str:
    return formats.percent(paper) if metric == "accuracy" else formats.published_fraction(paper)
