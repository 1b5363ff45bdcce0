"""The paper's bound (eq. 4) by defence, beside the distance that minimum-norm attacks needed."""

from __future__ import annotations

from pdm_lightning.report import captions
from pdm_lightning.report.cells import CLEAN, Block, Cube
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import (
    Column,
    Footnotes,
    Table,
    TableRow,
    capped_marks,
    collapse_marks,
    make_cell,
)

MODEL = {"eta": "eta", "eta_q01": "eta, 1 % quantile", "jacobian_norm": "||J||", "bound": "eta / ||J||"}
ATTACK = {
    "l2_mean": "Mean L2 needed",
    "bound_rank": "Rank correlation",
    "below_bound": "Below the bound, %",
}
CAPTION = (
    "eta: smallest distance between embeddings of two classes, over the correctly classified test images, and the 1 % "
    "quantile of each one's distance to its nearest of another class (extremes, without an interval). ||J||: Frobenius "
    "norm of the Jacobian of the embedding with respect to the image, mean over images. Rank correlation (Spearman) of "
    "eta / ||J|| with the L2 distance that the attack needed, image by image; the share of images that needed less "
    "than eta / ||J|| shows that it is an approximation, and no bound."
)


def bound_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """One table for each (budget, model) and data set: defences as rows."""
    attacked = [block for block in cube.blocks(detection=True) if cube.attacked("bound_rank", block)]
    made = []
    for block in attacked or cube.blocks(detection=False):
        rows = cube.select(budget=block.budget, model=block.model, metric="bound")
        for data in result.ordered("data", (row.data for row in rows)):
            made.append(_table(result, cube, block, attacked, data))
    return made


def _table(result: StudyResult, cube: Cube, block: Block, blocks: list[Block], data: str) -> Table:
    known = cube.select(budget=block.budget, model=block.model, data=data, metric="bound")
    defenses = result.ordered("defense", (row.defense for row in known))
    ranked = [attack for place, _, attack in cube.attacked("bound_rank", block) if place == data]
    attacks, footnotes = result.ordered("attack", ranked), Footnotes()
    keys = [(metric, CLEAN) for metric in MODEL]
    keys += [(metric, attack) for attack in attacks for metric in ATTACK]
    columns = []
    for metric, attack in keys:
        line = [(data, cube.measure("l2_mean", block, data, defense, attack)) for defense in defenses]
        mark = "" if attack == CLEAN else capped_marks(result, footnotes, line, attack)
        group = "Model" if attack == CLEAN else result.label("attack", attack) + mark
        columns.append(Column((MODEL | ATTACK)[metric], group))
    rows, measures = [], []
    for defense in defenses:
        found = [cube.measure(metric, block, data, defense, attack) for metric, attack in keys]
        measures += found
        cells = [make_cell(key[0], one, footnotes) for key, one in zip(keys, found, strict=True)]
        marks = collapse_marks(result, cube, footnotes, block, data, defense)
        rows.append(TableRow(result.label("defense", defense), cells, marks))
    seeds = captions.seeds_of(measures, "the 95 % interval")
    return Table(
        name=captions.file_name(result, "bound", block, blocks, data),
        kind="bound",
        title=captions.title(f"The bound on {result.label('data', data)}", result, block, blocks),
        caption=captions.sentences([CAPTION, captions.setting(result, block), seeds]),
        row_header="Defence",
        columns=columns,
        rows=rows,
        footnotes=footnotes.lines(),
    )
