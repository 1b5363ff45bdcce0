"""The ablation table: defences as rows, clustering and detection as columns."""

from __future__ import annotations

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import CLEAN, WORST_CASE, Block, Cube, Measure
from pdm_lightning.report.published import paper_value
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import (
    Column,
    Footnotes,
    Table,
    TableRow,
    capped_marks,
    collapse_marks,
    make_cell,
    scale_of,
)

CLEAN_COLUMNS = ("accuracy", "dbi", "cluster_variance", "cluster_distance")


def study_blocks(cube: Cube) -> list[Block]:
    """The detection blocks, and (budget, model) alone where nothing was attacked."""
    blocks = cube.blocks(detection=True)
    attacked = {(block.budget, block.model) for block in blocks}
    return blocks + [b for b in cube.blocks(detection=False) if (b.budget, b.model) not in attacked]


def ablation_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """One table for each (block, data set): accuracy, clustering and the AUC of every attack."""
    blocks = [block for block in study_blocks(cube) if block.threat != WORST_CASE]
    tables = []
    for block in blocks:
        rows = cube.select(budget=block.budget, model=block.model)
        datas = result.ordered("data", (row.data for row in rows))
        tables += [_ablation(result, cube, block, blocks, data) for data in datas]
    return tables


def _ablation(result: StudyResult, cube: Cube, block: Block, blocks: list[Block], data: str) -> Table:
    here = list(cube.select(budget=block.budget, model=block.model, data=data))
    defenses = result.ordered("defense", (row.defense for row in here))
    attacks = result.ordered("attack", (row.attack for row in here if row.attack != CLEAN))
    keys = [(metric, CLEAN) for metric in CLEAN_COLUMNS] + [("auc", attack) for attack in attacks]
    grid = {
        (defense, key): cube.measure(key[0], block, data, defense, key[1])
        for defense in defenses
        for key in keys
    }
    keys = [key for key in keys if any(grid[defense, key].seeds for defense in defenses)]
    footnotes, rows = Footnotes(), []
    for defense in defenses:
        cells = []
        for metric, attack in keys:
            paper = paper_value(metric, data, defense, attack, block.threat, block.detector)
            cells.append(make_cell(metric, grid[defense, (metric, attack)], footnotes, paper=paper))
        marks = collapse_marks(result, cube, footnotes, block, data, defense)
        rows.append(TableRow(result.label("defense", defense), cells, marks))
    cells = [
        cell for row in rows for cell, (metric, _) in zip(row.cells, keys, strict=True) if metric == "auc"
    ]
    scale = scale_of([cell.strip for cell in cells if cell.strip], 0.5, 1.0)
    columns = []
    for metric, attack in keys:
        line = [(data, grid[defense, (metric, attack)]) for defense in defenses]
        label = formats.metric_label(metric) if attack == CLEAN else result.label("attack", attack)
        label += capped_marks(result, footnotes, line, attack)
        column = (
            Column(label, "Clean images") if attack == CLEAN else Column(label, "AUC, paired rule", scale)
        )
        columns.append(column)
    extra = captions.subtitle(result, block, blocks)
    return Table(
        name=captions.file_name(result, "ablation", block, blocks, data),
        kind="ablation",
        title=f"Ablation on {result.label('data', data)}" + (f": {extra}" if extra else ""),
        caption=_caption(result, block, data, {key: [grid[d, key] for d in defenses] for key in keys}),
        row_header="Defence",
        columns=columns,
        rows=rows,
        footnotes=captions.finish(footnotes, any(cell.paper for row in rows for cell in row.cells)),
        strip_legend=f"AUC {scale[0]:g} to {scale[1]:g}" if attacks else "",
    )


def _caption(
    result: StudyResult, block: Block, data: str, columns: dict[tuple[str, str], list[Measure]]
) -> str:
    scored = [measure for (metric, _), line in columns.items() if metric == "auc" for measure in line]
    pairs = captions.count_of(scored, "pairs")
    parts = [
        f"Every defence on {result.label('data', data)}: accuracy, how tight and how far apart the classes "
        "lie in the embedding (lower Davies-Bouldin index: better), and the AUC of detecting each attack.",
        captions.setting(result, block),
        f"Evaluation rule of the AUC: {captions.RULES['auc']}{'; ' + pairs if pairs else ''}."
        if scored
        else "",
        captions.seeds_of([measure for line in columns.values() for measure in line], "the 95 % interval"),
    ]
    return captions.sentences(parts)
