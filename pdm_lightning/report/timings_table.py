"""How long trainings and attacks took, and how many images a second that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import CLEAN, WORST_CASE, Block, Cube, Measure
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.rows import Row
from pdm_lightning.report.tables import Cell, Column, Footnotes, Table, TableRow, key_cell, make_cell

COLUMNS = ("Time", "Images", "Images a second", "Passes an image", "Artifact")
CAPTION = (
    "Times are those of the machine that did it (see below), under whatever else ran on it; what came from the store "
    "took no time again. Passes: gradients, or queries, of an attack for one image."
)


def timings_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """One table for each (budget, model): trainings, then attacks, in sections of data set, attack and threat."""
    blocks = [
        block for block in cube.blocks(detection=False) if any(_timed(cube, block, attack=CLEAN))
        or _attacks(cube, block)
    ]  # fmt: skip
    return [_timings(result, cube, block, blocks) for block in blocks]


def _timed(cube: Cube, block: Block, **names: str) -> list[Row]:
    rows = cube.select(budget=block.budget, model=block.model, metric="seconds", **names)
    return [row for row in rows if row.value is not None]


def _attacks(cube: Cube, block: Block) -> list[Row]:
    """The attacks' rows, each crafting once: a detector that the attack does not know repeats the same one."""
    found: dict[tuple[str, ...], Row] = {}
    for row in _timed(cube, block):
        if row.attack != CLEAN and row.threat != WORST_CASE:
            found.setdefault(
                (row.data, row.defense, row.threat, row.attack, str(row.seed), str(row.value)), row
            )
    return list(found.values())


class _Line(NamedTuple):
    """A row before it is printed; `passes` is of an attack alone."""

    section: str
    label: str
    time: Measure
    images: float | None
    passes: Measure = Measure()


def _timings(result: StudyResult, cube: Cube, block: Block, blocks: list[Block]) -> Table:
    footnotes, trained, crafted = Footnotes(), _timed(cube, block, attack=CLEAN), _attacks(cube, block)
    lines = []
    for data in result.ordered("data", (row.data for row in trained)):
        section = f"Training on {result.label('data', data)}"
        here = [row.defense for row in trained if row.data == data]
        for defense in result.ordered("defense", here):
            time, images = (
                cube.measure(metric, block, data, defense) for metric in ("seconds", "images_seen")
            )
            lines.append(_Line(section, result.label("defense", defense), time, images.value))
    places = dict.fromkeys((row.data, row.threat, row.attack) for row in crafted)
    for data in result.ordered("data", (place[0] for place in places)):
        for attack in result.ordered("attack", (place[2] for place in places if place[0] == data)):
            for threat in dict.fromkeys(t for d, t, a in places if (d, a) == (data, attack)):
                lines += _attack_lines(result, cube, block, crafted, (data, threat, attack))
    seeds = captions.seeds_of(line.time for line in lines)
    return Table(
        name=captions.file_name(result, "timings", block, blocks),
        kind="timings",
        title=captions.title("Timings", result, block, blocks),
        caption=captions.sentences(
            [_together(trained, crafted), CAPTION, captions.setting(result, block), seeds]
        ),
        row_header="Defence",
        columns=[Column(name) for name in COLUMNS],
        rows=[TableRow(line.label, _cells(line, footnotes), section=line.section) for line in lines],
        footnotes=footnotes.lines(),
    )


def _attack_lines(
    result: StudyResult, cube: Cube, block: Block, crafted: list[Row], place: tuple[str, str, str]
) -> Iterator[_Line]:
    """The defences under one attack: where it knows the detector, the first of the detectors."""
    mine = [row for row in crafted if (row.data, row.threat, row.attack) == place]
    data, threat, attack = place
    told = f", {result.label('threat', threat).replace('_', ' ')}" if threat else ""
    section = f"{result.label('attack', attack)} on {result.label('data', data)}{told}"
    for defense in result.ordered("defense", (row.defense for row in mine)):
        row = next(row for row in mine if row.defense == defense)
        where = Block(block.budget, block.model, threat, row.detector, row.bandwidth)
        time, passes = (cube.measure(name, where, data, defense, attack) for name in ("seconds", "passes"))
        images = None if time.n_attacked is None else sum(time.n_attacked) / 2
        yield _Line(section, result.label("defense", defense), time, images, passes)


def _cells(line: _Line, footnotes: Footnotes) -> list[Cell]:
    time, images, passes = line.time, line.images, line.passes
    rate = images / time.value if images is not None and time.value else None
    return [
        make_cell("seconds", time, footnotes),
        Cell() if images is None else Cell(formats.count(images), sort=images),
        Cell() if rate is None else Cell(formats.real(rate), sort=rate),
        make_cell("passes", passes, footnotes) if passes.seeds else Cell(),
        key_cell(time.artifacts),
    ]


def _together(trained: list[Row], crafted: list[Row]) -> str:
    parts = [
        f"{word} {formats.seconds(sum(row.value or 0.0 for row in rows))}"
        for word, rows in (("training", trained), ("attacks", crafted))
        if rows
    ]
    return f"Together: {formats.words(parts)}."
