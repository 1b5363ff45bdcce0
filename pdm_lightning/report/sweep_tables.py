"""What the bandwidth does to Table 3: the sweep itself, and the distortion where all defences have the same AUC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import Block, Cube, Measure, aggregate
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.rows import Row
from pdm_lightning.report.tables import Cell, Column, Footnotes, Table, TableRow, capped_marks, make_cell

T = TypeVar("T")

#: The AUC of a detector that tells nothing: the level at which distortions are compared.
LEVEL = 0.5

#: What a cell's success has to say about its distortion.
Censored = Callable[[Measure], str]


def sweep_tables(
    result: StudyResult, cube: Cube, families: Mapping[Block, Sequence[Block]], censored: Censored
) -> list[Table]:
    """Two tables for each family of blocks that differ in the bandwidth alone, if it has several."""
    swept = {family: _in_order(members) for family, members in families.items() if len(members) > 1}
    tables = []
    for family, members in swept.items():
        if _places(result, cube, members)[1]:
            tables.append(_sweep(result, cube, family, list(swept), members, censored))
            tables.append(_equal_auc(result, cube, family, list(swept), members, censored))
    return tables


def around(points: Iterable[tuple[float, T]], level: float) -> list[tuple[float, T]]:
    """The first two neighbouring points with `level` between their first numbers; none where it lies outside."""
    for pair in pairwise(points):
        if min(x for x, _ in pair) <= level <= max(x for x, _ in pair):
            return list(pair)
    return []


def at_level(points: Iterable[tuple[float, float]], level: float = LEVEL) -> float | None:
    """The second number where the first one is `level`, on the straight line between the neighbouring points.

    Parameters
    ----------
    points : iterable of (float, float)
        (AUC, distortion), say, in the order of a sweep; the first two neighbours on either side of `level` count.
    level : float
        For example an AUC.

    Returns
    -------
    float or None
        None where `level` lies outside the points' first numbers, or there are fewer than two.
    """
    pair = around(points, level)
    if not pair:
        return None
    (one, start), (other, end) = pair
    share = (level - one) / (other - one) if one != other else 0.5
    return start + share * (end - start)


def _in_order(members: Sequence[Block]) -> list[Block]:
    rules = list(dict.fromkeys(block.rule for block in members))
    return sorted(members, key=lambda block: (rules.index(block.rule), block.scale))


def _places(result: StudyResult, cube: Cube, members: list[Block]) -> tuple[list[tuple[str, str]], list[str]]:
    """The attacks that ran at several bandwidths, and the (data, defence) that they ran on."""
    cells = [set(cube.attacked("distortion", block)) for block in members]
    counts = Counter(attack for known in cells for attack in {attack for _, _, attack in known})
    known = [cell for block in members for cell in cube.attacked("distortion", block) if counts[cell[2]] > 1]
    columns = result.columns((data, defense) for data, defense, _ in known)
    return columns, result.ordered("attack", (attack for _, _, attack in known))


def _sweep(
    result: StudyResult,
    cube: Cube,
    family: Block,
    families: list[Block],
    members: list[Block],
    censored: Censored,
) -> Table:
    columns, attacks = _places(result, cube, members)
    footnotes, rows, measures = Footnotes(), [], []
    for attack in attacks:
        for block in members:
            cells, line = [], []
            for data, defense in columns:
                found = [
                    cube.measure(metric, block, data, defense, attack)
                    for metric in ("distortion", "success_rate", "auc")
                ]
                line.append((data, found[0]))
                cells.append(make_cell("distortion", found[0], footnotes, warning=censored(found[1])))
                cells += [
                    make_cell("success_rate", found[1], footnotes),
                    make_cell("auc", found[2], footnotes),
                ]
            measures += [measure for _, measure in line]
            marks = capped_marks(result, footnotes, line, attack)
            name = block.bandwidth if isinstance(block.bandwidth, str) else f"{block.bandwidth:g}"
            rows.append(TableRow(name, cells, marks, result.label("attack", attack)))
    caption = [
        "The same attacks on detectors of other bandwidths: the bandwidth alone moves the distortion, so defences "
        "are compared at one rule, and at equal AUC.",
        captions.setting(result, family),
        captions.seeds_of(measures, "the 95 % interval"),
    ]
    return Table(
        name=captions.file_name(result, "white_box_sweep", family, families),
        kind="white_box",
        title=captions.title("White box: bandwidth sweep", result, family, families),
        caption=captions.sentences(caption),
        row_header="Bandwidth",
        columns=[
            Column(label, f"{result.label('data', data)}, {result.label('defense', defense)}")
            for data, defense in columns
            for label in ("Distortion", "Success, %", "AUC")
        ],
        rows=rows,
        footnotes=footnotes.lines(),
    )


def _equal_auc(
    result: StudyResult,
    cube: Cube,
    family: Block,
    families: list[Block],
    members: list[Block],
    censored: Censored,
) -> Table:
    columns, attacks = _places(result, cube, members)
    footnotes, rows = Footnotes(), []
    for attack in attacks:
        cells = [_level_cell(cube, members, (*column, attack), footnotes, censored) for column in columns]
        rows.append(TableRow(result.label("attack", attack), cells))
    caption = [
        f"Mean distortion where the detector's AUC is {formats.published_fraction(LEVEL)}, interpolated linearly "
        f"between the bandwidths of the sweep ({formats.words([str(block.bandwidth) for block in members])}); with "
        "several seeds, each on its own. Where an attack stops at the clean median, the AUCs of a sweep differ by less "
        "than their intervals, and this number is rough.",
        captions.setting(result, family),
    ]
    return Table(
        name=captions.file_name(result, "white_box_equal_auc", family, families),
        kind="white_box",
        title=captions.title("White box: distortion at equal AUC", result, family, families),
        caption=captions.sentences(caption),
        row_header="Attack",
        columns=[Column(result.label("defense", f), result.label("data", d)) for d, f in columns],
        rows=rows,
        footnotes=footnotes.lines(),
    )


def _level_cell(
    cube: Cube, members: list[Block], cell: tuple[str, str, str], footnotes: Footnotes, censored: Censored
) -> Cell:
    """The cell of (data, defence, attack): seeds are interpolated one by one, then averaged."""
    measures = [cube.measure("distortion", block, *cell) for block in members]
    warnings = [censored(cube.measure("success_rate", block, *cell)) for block in members]
    warning = "CENSORED: see the sweep" if any(warnings) else ""
    curves: dict[int, list[tuple[float, float]]] = {}
    for block in members:
        level, distance = (cube.by_seed(metric, block, *cell) for metric in ("auc", "distortion"))
        for seed in level.keys() & distance.keys():
            curves.setdefault(seed, []).append((level[seed], distance[seed]))
    if not curves:
        return make_cell("distortion", next((m for m in measures if m.status != "ok"), Measure()), footnotes)
    found = {seed: at_level(points) for seed, points in curves.items()}
    rows = [
        Row(seed=seed, metric="distortion", value=value, status="n/a" if value is None else "ok")
        for seed, value in sorted(found.items())
    ]
    measure = aggregate(rows)
    if measure.status == "ok":
        return make_cell("distortion", measure, footnotes, warning=warning)
    reached = [auc for points in curves.values() for auc, _ in points]
    footnotes.add(
        f"n/a: no two bandwidths of the sweep have AUC {formats.published_fraction(LEVEL)} between them; in brackets "
        "the AUC that they span."
    )
    spanned = f"{formats.fraction(min(reached))} to {formats.fraction(max(reached))}"
    return Cell(f"n/a (AUC {spanned})", warning=warning, status="n/a")
