"""Gradients by layer and defence, and how many times smaller they are than the first defence's."""

from __future__ import annotations

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import Block, Cube, Measure
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import Column, Footnotes, Table, TableRow, collapse_marks, make_cell

LOSSES = {
    "gradient_attack": "Attack loss (cross-entropy of the readout)",
    "gradient_train": "Training loss of each defence",
}
CAPTION = (
    "Mean over test images of the L2 norm of the gradient, at the image and at the output of each stage, the network "
    "in eval mode. The losses that defences are trained with have scales of their own; the attack loss is the same "
    "for all. The paper reports RCE's gradients five to ten times smaller than the baseline's, on layers and of a loss "
    "that it does not name."
)


def gradient_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """One table for each (budget, model) and data set: layers as rows, defences as columns."""
    blocks = cube.blocks(detection=False)
    made = []
    for block in blocks:
        here = [
            row
            for row in cube.select(budget=block.budget, model=block.model)
            if row.metric.partition(":")[0] in LOSSES
        ]
        for data in result.ordered("data", (row.data for row in here)):
            own = [row for row in here if row.data == data]
            defenses = result.ordered("defense", (row.defense for row in own))
            metrics = list(dict.fromkeys(row.metric for row in own))
            made.append(_table(result, cube, block, blocks, data, defenses, metrics))
    return made


def _table(
    result: StudyResult,
    cube: Cube,
    block: Block,
    blocks: list[Block],
    data: str,
    defenses: list[str],
    metrics: list[str],
) -> Table:
    footnotes, rows, measures = Footnotes(), [], []
    first = result.label("defense", defenses[0])
    for loss, section in LOSSES.items():
        for metric in (name for name in metrics if name.partition(":")[0] == loss):
            line = [cube.measure(metric, block, data, defense) for defense in defenses]
            measures += line
            cells = [
                make_cell(
                    metric, measure, footnotes, details=_beside(line[0], measure, first) if place else ()
                )
                for place, measure in enumerate(line)
            ]
            rows.append(TableRow(metric.partition(":")[2], cells, section=section))
    marks = [collapse_marks(result, cube, footnotes, block, data, defense) for defense in defenses]
    columns = [
        Column(result.label("defense", name) + mark) for name, mark in zip(defenses, marks, strict=True)
    ]
    seeds = captions.seeds_of(measures, "the 95 % bootstrap interval")
    return Table(
        name=captions.file_name(result, "gradients", block, blocks, data),
        kind="gradients",
        title=captions.title(f"Gradients on {result.label('data', data)}", result, block, blocks),
        caption=captions.sentences([CAPTION, captions.setting(result, block), seeds]),
        row_header="At",
        columns=columns,
        rows=rows,
        footnotes=footnotes.lines(),
    )


def _beside(first: Measure, measure: Measure, name: str) -> list[str]:
    """How many times smaller, or larger, than the first defence's, which is called `name`."""
    if not first.value or not measure.value:
        return []
    times = first.value / measure.value
    size, way = (times, "smaller") if times >= 1 else (1 / times, "larger")
    return [f"{formats.real(size)} times {way} than {name}"]
