"""Detectors ranked: on each defence by their mean AUC over the attacks, and over all defences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import WORST_CASE, Block, Cube, Measure, aggregate
from pdm_lightning.report.results import MEAN_AUC, StudyResult
from pdm_lightning.report.rows import Row
from pdm_lightning.report.tables import (
    Cell,
    Column,
    Footnotes,
    Table,
    TableRow,
    capped_marks,
    make_cell,
    scale_of,
)

STAR = "*"
READING = (
    "Ranks follow the mean. Intervals that overlap do not say that two detectors are alike, for they were tried on the "
    "same images: whether they differ stands in the tables of differences, from the first listed detector, which are "
    "paired (report.tables with differences)."
)


@dataclass(frozen=True)
class Place:
    """The AUCs of several detectors on one defence.

    Attributes
    ----------
    data, defense : str
    auc : dict
        Of (detector's block, attack).
    attacks, shared, blind : list of str
        All attacks, those for which every detector has a value that has any, and those of them that no detector was
        fitted on; all of them again where nothing would be left.
    means, means_all : dict of Block to Measure
        Mean over the blind and over the shared attacks, for each detector.
    """

    data: str
    defense: str
    auc: dict[tuple[Block, str], Measure]
    attacks: list[str]
    shared: list[str]
    blind: list[str]
    means: dict[Block, Measure]
    means_all: dict[Block, Measure]


def detector_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """For each budget, model and threat with several detectors: a ranking on each defence, and one over all."""
    blocks = [b for b in cube.blocks(detection=True) if b.detector and b.threat != WORST_CASE]
    settings = list(dict.fromkeys(_setting(block) for block in blocks))
    tables = []
    for setting in settings:
        members = [block for block in blocks if _setting(block) == setting and cube.attacked("auc", block)]
        members = _ordered(result, members)
        if len(members) > 1:
            places = _places(result, cube, members)
            tables += [_ranking(result, place, members, setting, settings) for place in places]
            tables += [_overall(result, places, members, setting, settings)] if len(places) > 1 else []
    return tables


def _setting(block: Block) -> Block:
    return replace(block, detector="", bandwidth="")


def _ordered(result: StudyResult, blocks: list[Block]) -> list[Block]:
    names = result.ordered("detector", (block.detector for block in blocks))
    return sorted(blocks, key=lambda block: names.index(block.detector))


def _places(result: StudyResult, cube: Cube, members: list[Block]) -> list[Place]:
    known = [cell for block in members for cell in cube.attacked("auc", block)]
    places = result.columns((data, defense) for data, defense, _ in known)
    return [_place(result, cube, members, *place, known) for place in places]


def _place(
    result: StudyResult,
    cube: Cube,
    members: list[Block],
    data: str,
    defense: str,
    known: Sequence[tuple[str, str, str]],
) -> Place:
    attacks = result.ordered("attack", (a for d, f, a in known if (d, f) == (data, defense)))
    auc = {(b, a): cube.measure("auc", b, data, defense, a) for b in members for a in attacks}
    ranked = [block for block in members if any(auc[block, a].status == "ok" for a in attacks)]
    shared = [a for a in attacks if ranked and all(auc[block, a].status == "ok" for block in ranked)]
    spoilt = {attack for block in ranked for attack in result.fitted.get(block.detector, ())}
    blind = [a for a in shared if a not in spoilt] or shared
    means, means_all = (
        {block: _mean(result, cube, block, data, defense, chosen) for block in ranked if chosen}
        for chosen in (blind, shared)
    )
    return Place(data, defense, auc, attacks, shared, blind, means, means_all)


def _mean(
    result: StudyResult, cube: Cube, block: Block, data: str, defense: str, attacks: list[str]
) -> Measure:
    """Mean over attacks, seed by seed, of the seeds that have a value for each of them.

    A seed has the interval that was measured of that very mean; none where it is a mean over other attacks.
    """
    values: dict[int, dict[str, float]] = {}
    for row in cube.select(metric="auc", data=data, defense=defense, **vars(block)):
        if row.attack in attacks and row.value is not None:
            values.setdefault(row.seed, {})[row.attack] = row.value
    whole = {seed: found for seed, found in values.items() if len(found) == len(attacks)}
    rows = []
    for seed, found in whole.items():
        mean = math.fsum(found.values()) / len(found)
        limits = _interval(result, block, data, defense, seed, mean)
        rows.append(Row(seed=seed, value=mean, ci_low=limits[0], ci_high=limits[1]))
    return aggregate(rows or [Row(status="n/a")])


def _interval(
    result: StudyResult, block: Block, data: str, defense: str, seed: int, mean: float
) -> tuple[float | None, float | None]:
    """Limits of the measured mean that has this value."""
    place = {"data": data, "defense": defense, "seed": seed, **vars(block)}
    for row in result.rows:
        measured = row.metric in MEAN_AUC and row.value is not None and abs(row.value - mean) < 1e-9
        if measured and all(getattr(row, name) == value for name, value in place.items()):
            return row.ci_low, row.ci_high
    return None, None


def ranks(means: dict[Block, Measure]) -> dict[Block, int]:
    """Rank of each detector that has a mean, 1 for the largest; equal means share the better rank."""
    values = {block: mean.value for block, mean in means.items() if mean.value is not None}
    return {
        block: 1 + sum(other > value + 1e-12 for other in values.values()) for block, value in values.items()
    }


def _sorted(members: list[Block], place: dict[Block, int]) -> list[Block]:
    """Detectors by rank, those without one last; in the order of display where equal."""
    return sorted(members, key=lambda block: place.get(block, len(members) + 1))


def _ranking(
    result: StudyResult, place: Place, members: list[Block], setting: Block, settings: list[Block]
) -> Table:
    footnotes, rows, order = Footnotes(), [], ranks(place.means)
    for block in _sorted(members, order):
        cells = _mean_cells(block, order, place.means, footnotes)
        if place.blind != place.shared:
            cells.append(make_cell("auc", place.means_all.get(block, Measure(status="n/a")), footnotes))
        cells += [_auc_cell(result, block, a, place.auc[block, a], footnotes) for a in place.attacks]
        rows.append(_row(result, block, members, cells, footnotes))
    strips = [cell.strip for row in rows for cell in row.cells if cell.strip]
    scale = scale_of(strips, 0.5, 1.0)
    columns = [Column("Rank"), Column("Mean AUC", scale=scale)]
    columns += [Column("Mean AUC, all", scale=scale)] if place.blind != place.shared else []
    for attack in place.attacks:
        line = [(place.data, place.auc[block, attack]) for block in members]
        label = result.label("attack", attack) + capped_marks(result, footnotes, line, attack)
        columns.append(Column(label, "AUC, paired rule", scale))
    where = f"{result.label('defense', place.defense)} on {result.label('data', place.data)}"
    return Table(
        name=captions.file_name(result, "detectors", setting, settings, f"{place.data}-{place.defense}"),
        kind="detectors",
        title=captions.title(f"Detectors ranked: {where}", result, setting, settings),
        caption=_ranking_caption(result, place, setting),
        row_header="Detector",
        columns=columns,
        rows=rows,
        footnotes=footnotes.lines(),
        strip_legend=f"AUC {scale[0]:g} to {scale[1]:g}",
    )


def _mean_cells(
    block: Block, order: dict[Block, int], means: dict[Block, Measure], footnotes: Footnotes
) -> list[Cell]:
    if block not in order:
        return [Cell(), make_cell("auc", means.get(block, Measure(status="n/a")), footnotes)]
    rank = order[block]
    return [Cell(str(rank), sort=float(rank)), make_cell("auc", means[block], footnotes)]


def _auc_cell(result: StudyResult, block: Block, attack: str, measure: Measure, footnotes: Footnotes) -> Cell:
    """An AUC; with a star where the detector was fitted on this very attack."""
    seen = attack in result.fitted.get(block.detector, ())
    return make_cell("auc", measure, footnotes, marks=STAR if seen else "")


def _row(
    result: StudyResult, block: Block, members: list[Block], cells: list[Cell], footnotes: Footnotes
) -> TableRow:
    label = result.label("detector", block.detector)
    seen = result.fitted.get(block.detector)
    if seen:
        names = formats.words([result.label("attack", attack) for attack in seen])
        footnotes.add(
            f"{STAR} {label}: it has seen {names} on training images; against that attack it is no blind test."
        )
    elif seen is not None:
        footnotes.add(f"{STAR} {label}: it was fitted on an attack that is none of these.")
    if sum(other.detector == block.detector for other in members) > 1:
        label += captions.bandwidth(block.bandwidth)
    return TableRow(label, cells, "" if seen is None else STAR)


def _ranking_caption(result: StudyResult, place: Place, setting: Block) -> str:
    measures = list(place.auc.values())
    count = captions.count_of(measures, "pairs")
    chosen = f"{len(place.blind)} of {len(place.attacks)} attacks, those for which every detector has a value"
    if place.blind != place.shared:
        chosen += f" and that none of them was fitted on; the second mean is over {len(place.shared)}"
    parts = [
        f"Detectors by their mean AUC over {chosen}.",
        captions.setting(result, setting),
        f"Evaluation rule: {captions.RULES['auc']}{'; ' + count if count else ''}.",
        captions.seeds_of(
            measures, "the 95 % bootstrap interval, of a mean with images drawn once for all attacks"
        ),
        READING,
    ]
    return captions.sentences(parts)


def _overall(
    result: StudyResult, places: list[Place], members: list[Block], setting: Block, settings: list[Block]
) -> Table:
    """Detectors by the mean of their means over all defences on which every detector has one."""
    footnotes, rows, positions = Footnotes(), [], [ranks(place.means) for place in places]
    shared = [k for k, order in enumerate(positions) if len(order) == len(members)]
    means = {block: _mean_of([places[k].means[block] for k in shared]) for block in members if shared}
    order = ranks(means)
    for block in _sorted(members, order):
        cells = _mean_cells(block, order, means, footnotes)
        cells.append(_mean_rank([positions[k][block] for k in shared]))
        for place in places:
            cells.append(make_cell("auc", place.means.get(block, Measure(status="n/a")), footnotes))
        rows.append(_row(result, block, members, cells, footnotes))
    columns = [Column("Rank"), Column("Mean AUC"), Column("Mean rank")]
    columns += [Column(result.label("defense", p.defense), result.label("data", p.data)) for p in places]
    measures = [mean for place in places for mean in place.means.values()]
    caption = [
        f"Detectors by the mean, over {len(shared)} of {len(places)} defences (those on which every detector has a "
        "value), of their mean AUC over the attacks.",
        captions.setting(result, setting),
        "The tables of each defence say over which attacks, and have the intervals.",
        captions.seeds_of(measures),
        READING,
    ]
    return Table(
        name=captions.file_name(result, "detectors_overall", setting, settings),
        kind="detectors",
        title=captions.title("Detectors ranked over all defences", result, setting, settings),
        caption=captions.sentences(caption),
        row_header="Detector",
        columns=columns,
        rows=rows,
        footnotes=footnotes.lines(),
    )


def _mean_of(measures: list[Measure]) -> Measure:
    values = [measure.value for measure in measures if measure.value is not None]
    return Measure(status="ok", value=math.fsum(values) / len(values), seeds=1, seeds_ok=1)


def _mean_rank(numbers: list[int]) -> Cell:
    if not numbers:
        return Cell()
    mean = sum(numbers) / len(numbers)
    return Cell(formats.published_fraction(round(mean, 2)), sort=mean)
