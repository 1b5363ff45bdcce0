"""Differences from a reference on the same images: each defence and each detector minus the first listed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtr

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import WORST_CASE, Block, Cube, Measure
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import Cell, Column, Footnotes, Table, TableRow, capped_marks, make_cell

STAR = "*"
ALPHA = 0.05
#: What a difference is of, and what its sign says.
MEANING = {
    "auc_minus": (
        "AUC minus that of the reference, on the images that both attacked and that are fooled in both; above 0: "
        "better than the reference.",
        "difference_auc",
        "the 95 % bootstrap interval over images, which both share",
        "bootstrap p-value",
    ),
    "joint_success_minus": (
        "Joint success minus that of the reference, in points, on the images that both attacked; below 0: better "
        "than the reference.",
        "difference_joint",
        "the 95 % interval of a paired difference of rates",
        "exact p-value of McNemar's test",
    ),
}
HOLM = "Holm's correction over all p-values of this table"
SEVERAL = (
    "With three seeds or more p is of Student's t test over their differences; there is none with two, which such a "
    "test has no power for, nor where all seeds differ by the same amount."
)
SEEDS = 3
"""Seeds below which a t test is not made."""


@dataclass(frozen=True)
class Line:
    """A column: who is compared with what, where.

    Attributes
    ----------
    block : Block
        With the detector of the left side.
    data, defense : str
        Of the left side.
    metric : str
        For example ``auc_minus:ce``.
    axis : str
        Which of ``defense`` and ``detector`` the reference is.
    label : str
        ``PDM - CE``.
    """

    block: Block
    data: str
    defense: str
    metric: str
    axis: str
    label: str

    @property
    def kind(self) -> tuple[str, float | None]:
        """What is compared, and at which false-positive rate."""
        name, _, fpr = formats.difference_of(self.metric) or ("", "", None)
        return name, fpr

    @property
    def group(self) -> Block:
        """What all columns of its table share."""
        return self.block if self.axis == "defense" else replace(self.block, detector="", bandwidth="")


def difference_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """Per kind of difference: defences within each block, and detectors within each budget, model and threat."""
    lines = _lines(result, cube)
    kinds = sorted(dict.fromkeys((line.kind, line.axis) for line in lines), key=_position)
    tables = []
    for kind, axis in kinds:
        groups: dict[Block, dict[Line, list[str]]] = {}
        for line, attacks in lines.items():
            if (line.kind, line.axis) == (kind, axis):
                groups.setdefault(line.group, {})[line] = attacks
        tables += [_table(result, cube, block, list(groups), members) for block, members in groups.items()]
    return tables


def _position(place: tuple[tuple[str, float | None], str]) -> tuple[int, float, str]:
    """AUC first, then joint success from the largest false-positive rate; defences before detectors."""
    (name, fpr), axis = place
    return list(MEANING).index(name), -(fpr or 0.0), axis


def _lines(result: StudyResult, cube: Cube) -> dict[Line, list[str]]:
    """Every column that some row speaks of, in the order of display, with the attacks of its rows."""
    defenses: dict[tuple[str, str], set[str]] = {}
    for row in cube.rows:
        defenses.setdefault((row.budget, row.data), set()).add(row.defense)
    found: dict[Line, list[str]] = {}
    for row in cube.rows:
        taken = formats.difference_of(row.metric)
        if taken and taken[0] in MEANING and row.threat != WORST_CASE:
            others = defenses[row.budget, row.data] - {row.defense}
            axis = "defense" if taken[1] in others else "detector"
            label = f"{result.label(axis, getattr(row, axis))} - {result.label(axis, taken[1])}"
            block = Block(row.budget, row.model, row.threat, row.detector, row.bandwidth)
            line = Line(block, row.data, row.defense, row.metric, axis, label)
            found.setdefault(line, []).append(row.attack)
    columns = result.columns((line.data, line.defense) for line in found)
    return dict(sorted(found.items(), key=lambda item: columns.index((item[0].data, item[0].defense))))


def _table(
    result: StudyResult, cube: Cube, block: Block, blocks: list[Block], members: dict[Line, list[str]]
) -> Table:
    lines, axis = list(members), next(iter(members)).axis
    attacks = result.ordered("attack", (attack for found in members.values() for attack in found))
    grid = {(a, k): _measure(cube, line, line.metric, a) for a in attacks for k, line in enumerate(lines)}
    values = {place: _p(cube, lines[place[1]], place[0], measure) for place, measure in grid.items()}
    known = {place: p for place, p in values.items() if p is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    footnotes, rows = Footnotes(), []
    for attack in attacks:
        cells = [
            _cell(line.metric, grid[attack, k], known.get((attack, k)), corrected.get((attack, k)), footnotes)
            for k, line in enumerate(lines)
        ]
        line_measures = [(line.data, grid[attack, k]) for k, line in enumerate(lines)]
        marks = capped_marks(result, footnotes, line_measures, attack)
        rows.append(TableRow(result.label("attack", attack), cells, marks))
    footnotes.add(f"{STAR} p below {formats.p_value(ALPHA)} after {HOLM} ({len(known)} of them).")
    name, fpr = lines[0].kind
    what = "Defences compared" if axis == "defense" else "Detectors compared"
    at_rate = "" if fpr is None else f" at {formats.false_positives(fpr)}"
    kind = "AUC" if name == "auc_minus" else f"joint success{at_rate}"
    stem = MEANING[name][1] + ("" if fpr is None else f"_{formats.slug(f'{fpr:g}')}")
    return Table(
        name=captions.file_name(result, f"{stem}_{axis}", block, blocks),
        kind="differences",
        title=captions.title(f"{what}: {kind}", result, block, blocks),
        caption=_caption(result, block, name, list(grid.values())),
        row_header="Attack",
        columns=[Column(line.label, _where(result, line)) for line in lines],
        rows=rows,
        footnotes=footnotes.lines(),
    )


def _measure(cube: Cube, line: Line, metric: str, attack: str) -> Measure:
    return cube.measure(metric, line.block, line.data, line.defense, attack)


def _p(cube: Cube, line: Line, attack: str, measure: Measure) -> float | None:
    """The p-value of one seed as it was found; of several, of a t test over their differences, or None."""
    if measure.value is None:
        return None
    if measure.sd is None:
        name = "p_minus:" if line.metric.startswith("auc_minus:") else f"p_{line.metric.partition(':')[0]}:"
        return _measure(cube, line, name + line.metric.partition(":")[2], attack).value
    return t_test(measure.value, measure.sd, measure.seeds_ok)


def t_test(mean: float, sd: float, k: int) -> float | None:
    """Two-sided p-value of Student's t test that k values have mean 0.

    None for fewer than `SEEDS` values, and where they do not differ but by rounding: their deviation tells nothing.
    """
    if k < SEEDS or sd <= 1e-12 * max(abs(mean), 1.0):
        return None
    return float(2 * stdtr(k - 1, -abs(mean) * math.sqrt(k) / sd))


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given.

    The k-th smallest of m is multiplied by m - k + 1, is never below the one before it, and at most 1.
    """
    corrected, largest = [0.0] * len(values), 0.0
    for k, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        largest = max(largest, min(1.0, (len(values) - k) * values[place]))
        corrected[place] = largest
    return corrected


def _cell(
    metric: str, measure: Measure, p: float | None, corrected: float | None, footnotes: Footnotes
) -> Cell:
    if p is None or corrected is None:
        untested = ["p n/a"] if measure.value is not None and measure.seeds_ok > 1 else []
        return make_cell(metric, measure, footnotes, details=untested)
    details = [f"p {formats.p_value(p)}, corrected {formats.p_value(corrected)}"]
    marks = STAR if corrected < ALPHA else ""
    return make_cell(metric, measure, footnotes, details=details, marks=marks)


def _where(result: StudyResult, line: Line) -> str:
    data = result.label("data", line.data)
    return data if line.axis == "defense" else f"{data}, {result.label('defense', line.defense)}"


def _caption(result: StudyResult, block: Block, name: str, measures: list[Measure]) -> str:
    meaning, _, interval, test = MEANING[name]
    count = captions.count_of(measures, "images")
    several = any(measure.seeds_ok > 1 for measure in measures)
    parts = [
        meaning,
        captions.setting(result, block),
        f"{count}." if count else "",
        captions.seeds_of(measures, interval),
        f"p: {test}; corrected: {HOLM}.",
        SEVERAL if several else "",
    ]
    return captions.sentences(parts)
