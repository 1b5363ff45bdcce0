"""Detection at equal success: the AUC at that radius of an attack at which it fools so many images of each model."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

from pdm_lightning.report import captions
from pdm_lightning.report.cells import Block, Cube, Measure, aggregate
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.rows import Row
from pdm_lightning.report.sweep_tables import at_level
from pdm_lightning.report.tables import Column, Footnotes, Table, TableRow, capped_marks, make_cell

#: Shares of the attacked images, those classified correctly, that are fooled.
SHARES = (0.1, 0.2, 0.5, 0.8)
_EPS = re.compile(r"(?<=[\[,])eps=([^,\]]+),?")
_CAPTION = (
    "Detection AUC, paired rule, where an attack fools the same share of each model's images: on the straight line "
    "between the radii of the sweep that fool fewer and more, seed by seed. At one radius, AUCs compare as well how "
    "near each model is to being fooled."
)
_DIFFERENCES = "Last columns: each defence minus the one before it, seed by seed."
#: Most defences whose differences are shown: in the order of an ablation neighbours differ in more than one term.
_MOST = 4

_MINUS = "auc_minus:"

#: By radius, what an attack is called.
Sweep = dict[float, str]
#: By data set and attack.
Sweeps = dict[tuple[str, str], Sweep]
#: By seed, the share fooled and the row of the AUC at each radius.
Points = dict[int, list[tuple[float, Row]]]


def equal_success_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """One table for each block in which an attack ran at several radii and fooled so many images."""
    swept = {block: sweeps for block in cube.blocks(detection=True) if (sweeps := _sweeps(cube, block))}
    tables = [_table(result, cube, block, list(swept), sweeps) for block, sweeps in swept.items()]
    return [table for table in tables if table.rows]


def radius_of(attack: str) -> tuple[str, float] | None:
    """``fgsm[eps=0.1]`` -> (``fgsm``, 0.1); None for an attack that ran at its own radius, or has none."""
    found = _EPS.search(attack)
    if found is None:
        return None
    rest = (attack[: found.start()] + attack[found.end() :]).replace(",]", "]").removesuffix("[]")
    try:
        return rest, float(found[1])
    except ValueError:
        return None


def _sweeps(cube: Cube, block: Block) -> Sweeps:
    """The radii of each attack that has several."""
    swept: Sweeps = defaultdict(dict)
    for data, _, attack in cube.attacked("auc", block):
        if found := radius_of(attack):
            swept[data, found[0]][found[1]] = attack
    return {place: dict(sorted(radii.items())) for place, radii in swept.items() if len(radii) > 1}


def _table(result: StudyResult, cube: Cube, block: Block, blocks: list[Block], sweeps: Sweeps) -> Table:
    footnotes = Footnotes()
    names = {attack for radii in sweeps.values() for attack in radii.values()}
    defenses = result.ordered(
        "defense", (defense for _, defense, attack in cube.attacked("auc", block) if attack in names)
    )
    neighbours = list(pairwise(range(len(defenses)))) if len(defenses) <= _MOST else []
    rows: list[TableRow] = []
    measures: list[Measure] = []
    for (data, _), radii in sweeps.items():
        name = _label(result, radii)
        found = [_points(cube, block, data, defense, radii) for defense in defenses]
        known = [
            cube.measure("auc", block, data, one, attack) for one in defenses for attack in radii.values()
        ]
        marks = capped_marks(result, footnotes, [(data, measure) for measure in known], name)
        for share in SHARES:
            line = [{seed: _at(share, points) for seed, points in one.items()} for one in found]
            shown = [aggregate(at.values()) for at in line]
            if all(measure.status != "ok" for measure in shown):
                continue
            measures += shown
            cells = [make_cell("auc", measure, footnotes) for measure in shown]
            cells += [make_cell(_MINUS, _minus(line[j], line[i]), footnotes) for i, j in neighbours]
            rows.append(
                TableRow(f"{name}, {100 * share:g} % fooled", cells, marks, result.label("data", data))
            )
    labels = [result.label("defense", defense) for defense in defenses]
    interval = "the 95 % bootstrap interval, interpolated as the AUC is"
    told = [_CAPTION, _DIFFERENCES] if neighbours else [_CAPTION]
    caption = [*told, captions.setting(result, block), captions.seeds_of(measures, interval)]
    return Table(
        name=captions.file_name(result, "equal_success", block, blocks),
        kind="equal_success",
        title=captions.title("Detection AUC at equal success", result, block, blocks),
        caption=captions.sentences(caption),
        row_header="Attack",
        columns=[
            *(Column(label, "AUC") for label in labels),
            *(Column(f"{labels[j]} - {labels[i]}", "Difference") for i, j in neighbours),
        ],
        rows=rows,
        footnotes=footnotes.lines(),
    )


def _label(result: StudyResult, radii: Sweep) -> str:
    """What the attack is called without a radius."""
    label = result.label("attack", next(iter(radii.values())))
    found = radius_of(label)
    return found[0] if found else label


def _points(cube: Cube, block: Block, data: str, defense: str, radii: Sweep) -> Points:
    """In the order of the radii; those at which too few are fooled for an AUC are left out."""
    points: Points = defaultdict(list)
    for attack in radii.values():
        shares = cube.by_seed("misclassified_rate", block, data, defense, attack)
        for row in cube.select(metric="auc", data=data, defense=defense, attack=attack, **vars(block)):
            if row.value is not None and row.seed in shares:
                points[row.seed].append((shares[row.seed], row))
    return points


def _at(share: float, points: list[tuple[float, Row]]) -> Row:
    """A seed's AUC, with its interval and number of pairs, where `share` of the attacked images are fooled."""
    first = points[0][1]
    value, low, high = (
        None if any(number is None for _, number in curve) else at_level(curve, share)
        for curve in ([(x, getattr(row, end)) for x, row in points] for end in ("value", "ci_low", "ci_high"))
    )
    if value is None:
        return replace(first, value=None, ci_low=None, ci_high=None, n=None, status="n/a")
    return replace(
        first, value=value, ci_low=low, ci_high=high, n=round(share * (first.n_attacked or 0)) or None
    )


def _minus(other: dict[int, Row], one: dict[int, Row]) -> Measure:
    """The difference of two defences, over the seeds that have both."""
    pairs = [(seed, other[seed].value, one[seed].value) for seed in sorted(other.keys() & one.keys())]
    known = [
        Row(seed=seed, metric=_MINUS, value=left - right)
        for seed, left, right in pairs
        if left is not None and right is not None
    ]
    return aggregate(known) if known else Measure(status="n/a")
