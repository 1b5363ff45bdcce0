"""The summary: every number of a (data set, defence), one metric a row."""

from __future__ import annotations

from dataclasses import replace

from pdm_lightning.report import captions, formats
from pdm_lightning.report.ablation_table import study_blocks
from pdm_lightning.report.cells import CLEAN, Block, Cube, Measure
from pdm_lightning.report.published import paper_value
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import (
    Cell,
    Column,
    Footnotes,
    Table,
    TableRow,
    capped_marks,
    collapse_marks,
    key_cell,
    make_cell,
)

KEYS = "Artifact"


def summary_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """One table for each (block, data set, defence): every metric as a row, clean images first."""
    blocks = study_blocks(cube)
    tables = []
    for block in blocks:
        rows = list(cube.select(budget=block.budget, model=block.model))
        for data in result.ordered("data", (row.data for row in rows)):
            defenses = result.ordered("defense", (row.defense for row in rows if row.data == data))
            tables += [_summary(result, cube, block, blocks, data, defense) for defense in defenses]
    return tables


def _summary(
    result: StudyResult, cube: Cube, block: Block, blocks: list[Block], data: str, defense: str
) -> Table:
    here = list(cube.select(budget=block.budget, model=block.model, data=data, defense=defense))
    footnotes, rows, measures = Footnotes(), [], []
    for attack in result.ordered("attack", [CLEAN, *(row.attack for row in here)]):
        metrics = dict.fromkeys(row.metric for row in here if row.attack == attack)
        for metric in sorted(metrics, key=formats.metric_position):
            measure = cube.measure(metric, block, data, defense, attack)
            # p-values of several seeds have no mean
            if measure.seeds and not (metric.startswith("p_") and measure.seeds_ok > 1):
                # the paper's distortions belong to the plain bandwidth rule
                fits = metric != "distortion" or block.scale == 1
                paper = (
                    paper_value(metric, data, defense, attack, block.threat, block.detector) if fits else None
                )
                marks = capped_marks(result, footnotes, [(data, measure)], attack) if attack != CLEAN else ""
                section = "Clean images" if attack == CLEAN else result.label("attack", attack)
                cells = _summary_cells(metric, measure, footnotes, paper)
                rows.append(TableRow(_summary_label(metric, attack), cells, marks, section))
                measures.append(measure)
    rows.sort(key=lambda row: row.section != "Clean images")
    collapse_marks(result, cube, footnotes, block, data, defense)
    name = f"{result.label('defense', defense)} on {result.label('data', data)}"
    caption = [f"Everything measured of {name}.", captions.setting(result, block)]
    caption.append(captions.seeds_of(measures, "the 95 % interval"))
    extra = captions.subtitle(result, block, blocks)
    return Table(
        name=captions.file_name(result, "summary", block, blocks, f"{data}-{defense}"),
        kind="summary",
        title=f"All numbers: {name}" + (f", {extra}" if extra else ""),
        caption=captions.sentences(caption),
        row_header="Metric",
        columns=[Column("Value"), Column("Spread"), Column("n"), Column("Paper"), Column(KEYS)],
        rows=rows,
        footnotes=[*captions.finish(footnotes, any(row.cells[3].value for row in rows)), *_keys_note(rows)],
    )


def _keys_note(rows: list[TableRow]) -> list[str]:
    keys = [key for row in rows for key in row.cells[4].keys]
    return [f"{KEYS}: the beginning of a key; pdml store show KEY tells how it was made."] if keys else []


def _summary_cells(metric: str, measure: Measure, footnotes: Footnotes, paper: float | None) -> list[Cell]:
    cell = make_cell(metric, measure, footnotes, paper=paper)
    spread = " ".join(part for part in (cell.interval, *cell.details) if part)
    alone = replace(cell, interval="", n="", details=(), paper="", strip=None)
    return [alone, Cell(spread), Cell(cell.n), Cell(cell.paper), key_cell(measure.artifacts)]


def _summary_label(metric: str, attack: str) -> str:
    if metric == "seconds":
        return "Training time" if attack == CLEAN else "Crafting time"
    return formats.metric_label(metric) if metric else "Outcome"
