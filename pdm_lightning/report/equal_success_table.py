"""Detection at equal success: the AUC at that radius of an attack at which it fools so many images of each model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from pdm_lightning.report import captions
from pdm_lightning.report.cells import Block, Cube, Measure, aggregate, telling
from pdm_lightning.report.contrast import unpaired
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.rows import Row
from pdm_lightning.report.sweep_tables import around, at_level
from pdm_lightning.report.tables import (
    Column,
    Footnotes,
    Table,
    TableRow,
    capped_marks,
    collapse_marks,
    make_cell,
)

#: Shares of the attacked images, those classified correctly, that are fooled.
SHARES = (0.1, 0.2, 0.5, 0.8)
_EPS = re.compile(r"(?<=[\[,])eps=([^,\]]+),?")
_CAPTION = (
    "Detection AUC, paired rule, where an attack fools the same share of each model's images: on the straight line "
    "between the radii of the sweep that fool fewer and more, seed by seed; n is that share of the attacked images. At "
    "one radius, AUCs compare as well how near each model is to being fooled."
)
_DIFFERENCES = (
    "Last columns: each defence minus the one before it, seed by seed; a seed's interval takes its two AUCs for "
    "independent (Newcombe 1998, method 10), n is the smaller of both."
)
_NOT_REACHED = (
    "n/a: the share lies between no two radii that have an AUC; of a difference, in no seed for both."
)
#: Most defences whose differences are shown: in the order of an ablation neighbours differ in more than one term.
_MOST = 4

_MINUS = "auc_minus:"

#: By radius, what an attack is called.
Sweep = dict[float, str]
#: By data set and attack.
Sweeps = dict[tuple[str, str], Sweep]


@dataclass
class Curve:
    """One seed's sweep, in the order of the radii: what became of its AUCs, and the share fooled where there is one."""

    statuses: set[str] = field(default_factory=set)
    points: list[tuple[float, Row]] = field(default_factory=list)

    def at(self, seed: int, share: float) -> Row:
        """The AUC, with its interval and number of pairs, where `share` of the attacked images are fooled."""
        pair = around(self.points, share)
        if not pair:
            # what is there, but elsewhere, is as good as too few
            statuses = {"n/a" if status == "ok" else status for status in self.statuses}
            return Row(seed=seed, metric="auc", status=telling(statuses or {"missing"}))
        value, low, high = (
            None if any(number is None for _, number in ends) else at_level(ends, share)
            for ends in (
                [(x, getattr(row, end)) for x, row in pair] for end in ("value", "ci_low", "ci_high")
            )
        )
        n = round(share * (pair[0][1].n_attacked or 0)) or None
        return Row(seed=seed, metric="auc", value=value, ci_low=low, ci_high=high, n=n)


#: By seed.
Curves = dict[int, Curve]


def equal_success_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """One table for each block in which an attack ran at several radii and fooled so many images."""
    found = {block: cube.attacked("auc", block) for block in cube.blocks(detection=True)}
    swept = {block: sweeps for block, cells in found.items() if (sweeps := _sweeps(cells))}
    tables = [
        _table(result, cube, block, list(swept), sweeps, _defenses(result, found[block], sweeps))
        for block, sweeps in swept.items()
    ]
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


def _sweeps(cells: Iterable[tuple[str, str, str]]) -> Sweeps:
    """The radii of each attack that has several."""
    swept: Sweeps = defaultdict(dict)
    for data, _, attack in cells:
        if found := radius_of(attack):
            swept[data, found[0]][found[1]] = attack
    return {place: dict(sorted(radii.items())) for place, radii in swept.items() if len(radii) > 1}


def _defenses(result: StudyResult, cells: Iterable[tuple[str, str, str]], sweeps: Sweeps) -> list[str]:
    names = {attack for radii in sweeps.values() for attack in radii.values()}
    return result.ordered("defense", (defense for _, defense, attack in cells if attack in names))


def _table(
    result: StudyResult, cube: Cube, block: Block, blocks: list[Block], sweeps: Sweeps, defenses: list[str]
) -> Table:
    footnotes = Footnotes({"n/a": _NOT_REACHED})
    neighbours = list(pairwise(range(len(defenses)))) if len(defenses) <= _MOST else []
    rows: list[TableRow] = []
    measures: list[Measure] = []
    for (data, _), radii in sweeps.items():
        name = _label(result, radii)
        found = [_curves(cube, block, data, defense, radii) for defense in defenses]
        known = [
            (data, cube.measure("auc", block, data, one, attack))
            for one in defenses
            for attack in radii.values()
        ]
        for share in SHARES:
            shown = [_measure(curves, share) for curves in found]
            if all(measure.status != "ok" for measure in shown):
                continue
            measures += shown
            cells = []
            for defense, measure in zip(defenses, shown, strict=True):
                marks = collapse_marks(result, cube, footnotes, block, data, defense)
                cells.append(make_cell("auc", measure, footnotes, marks=marks))
            cells += [make_cell(_MINUS, _minus(found[j], found[i], share), footnotes) for i, j in neighbours]
            marks = capped_marks(result, footnotes, known, name)
            label = f"{name}, {100 * share:g} % fooled"
            rows.append(TableRow(label, cells, marks, result.label("data", data)))
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


def _curves(cube: Cube, block: Block, data: str, defense: str, radii: Sweep) -> Curves:
    curves: Curves = defaultdict(Curve)
    for attack in radii.values():
        shares = cube.by_seed("misclassified_rate", block, data, defense, attack)
        for row in cube.of("auc", block, data, defense, attack):
            curves[row.seed].statuses.add(row.status)
            if row.value is not None and row.seed in shares:
                curves[row.seed].points.append((shares[row.seed], row))
    return dict(curves)


def _measure(curves: Curves, share: float) -> Measure:
    """Seeds are interpolated one by one; the artifacts are those of the neighbours."""
    points = [point for curve in curves.values() for point in around(curve.points, share)]
    measure = aggregate(curve.at(seed, share) for seed, curve in curves.items())
    return replace(measure, artifacts=tuple(dict.fromkeys(row.artifact for _, row in points if row.artifact)))


def _minus(other: Curves, one: Curves, share: float) -> Measure:
    """The difference of two defences, seed by seed; a seed that one of them lacks is counted."""
    rows = []
    for seed in sorted(other.keys() | one.keys()):
        left, right = (curves.get(seed, Curve()).at(seed, share) for curves in (other, one))
        if left.value is None or right.value is None:
            rows.append(Row(seed=seed, metric=_MINUS, status="n/a"))
        else:
            gap = unpaired(aggregate([left]), aggregate([right]))
            n = min((row.n for row in (left, right) if row.n is not None), default=None)
            rows.append(Row(seed=seed, metric=_MINUS, value=gap.value, ci_low=gap.low, ci_high=gap.high, n=n))
    return aggregate(rows)
