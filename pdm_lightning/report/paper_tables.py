"""The paper's Table 1 (accuracy) and Table 2 (detection), with the paper's numbers beside ours."""

from __future__ import annotations

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import CLEAN, WORST_CASE, Block, Cube, Measure
from pdm_lightning.report.published import paper_value
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import (
    Cell,
    Column,
    Footnotes,
    Strip,
    Table,
    TableRow,
    capped_marks,
    collapse_marks,
    make_cell,
    scale_of,
    span,
)


def accuracy_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """Table 1, one for each (budget, model): data sets as rows, defences as columns, percent."""
    blocks = [b for b in cube.blocks(detection=False) if any(_clean(cube, b, "accuracy"))]
    return [_accuracy(result, cube, block, blocks) for block in blocks]


def _clean(cube: Cube, block: Block, metric: str) -> list[tuple[str, str]]:
    rows = cube.select(budget=block.budget, model=block.model, attack=CLEAN, metric=metric)
    return [(row.data, row.defense) for row in rows]


def _accuracy(result: StudyResult, cube: Cube, block: Block, blocks: list[Block]) -> Table:
    pairs = _clean(cube, block, "accuracy")
    defenses = result.ordered("defense", (defense for _, defense in pairs))
    footnotes, measures, rows = Footnotes(), [], []
    for data in result.ordered("data", (data for data, _ in pairs)):
        cells = []
        for defense in defenses:
            measure = cube.measure("accuracy", block, data, defense)
            marks = collapse_marks(result, cube, footnotes, block, data, defense)
            paper = paper_value("accuracy", data, defense)
            cells.append(make_cell("accuracy", measure, footnotes, paper=paper, marks=marks))
            measures.append(measure)
        rows.append(TableRow(result.label("data", data), cells))
    strips = _strips(rows)
    scale = scale_of(strips, _accuracy_floor(strips), 1.0)
    caption = [
        "Accuracy on clean test images, in percent.",
        captions.setting(result, block),
        _sentence(captions.count_of(measures, "images")),
        captions.seeds_of(measures, "the 95 % Wilson interval"),
    ]
    return Table(
        name=captions.file_name(result, "accuracy", block, blocks),
        kind="accuracy",
        title=captions.title("Accuracy on clean images", result, block, blocks),
        caption=captions.sentences(caption),
        row_header="Data",
        columns=[Column(result.label("defense", defense), scale=scale) for defense in defenses],
        rows=rows,
        footnotes=captions.finish(footnotes, _has_paper(rows)),
        strip_legend=f"{100 * scale[0]:g} to {100 * scale[1]:g} %",
    )


def detection_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """Table 2 for each block: attacks as rows, defences within data sets as columns.

    First with the paired rule; then, where the study has ``auc_all``, with failed attacks kept. The
    paper's numbers stand beside the paired rule alone, which is how its evaluation is read.
    """
    tables = []
    single = [block for block in cube.blocks(detection=True) if block.threat != WORST_CASE]
    for metric in ("auc", "auc_all"):
        blocks = [block for block in single if cube.attacked(metric, block)]
        tables += [_detection(result, cube, block, blocks, metric) for block in blocks]
    return tables


def _detection(result: StudyResult, cube: Cube, block: Block, blocks: list[Block], metric: str) -> Table:
    known = cube.attacked(metric, block)
    columns = result.columns((data, defense) for data, defense, _ in known)
    footnotes, measures, rows = Footnotes(), [], []
    for attack in result.ordered("attack", (cell[2] for cell in known)):
        line = [(data, cube.measure(metric, block, data, defense, attack)) for data, defense in columns]
        cells = [
            _detection_cell(result, cube, block, metric, column, attack, measure, footnotes)
            for column, (_, measure) in zip(columns, line, strict=True)
        ]
        measures += [measure for _, measure in line]
        rows.append(
            TableRow(result.label("attack", attack), cells, capped_marks(result, footnotes, line, attack))
        )
    scale = scale_of(_strips(rows), 0.5, 1.0)
    kept = metric == "auc_all"
    title = "Detection with failed attacks kept" if kept else "Detection of adversarial images"
    return Table(
        name=captions.file_name(result, "detection_failures_kept" if kept else "detection", block, blocks),
        kind="detection",
        title=captions.title(title, result, block, blocks),
        caption=_detection_caption(result, block, metric, measures),
        row_header="Attack",
        columns=[Column(result.label("defense", f), result.label("data", d), scale) for d, f in columns],
        rows=rows,
        footnotes=captions.finish(footnotes, _has_paper(rows)),
        strip_legend=f"AUC {scale[0]:g} to {scale[1]:g}",
    )


def _detection_cell(
    result: StudyResult,
    cube: Cube,
    block: Block,
    metric: str,
    column: tuple[str, str],
    attack: str,
    measure: Measure,
    footnotes: Footnotes,
) -> Cell:
    data, defense = column
    success = cube.measure("misclassified_rate", block, data, defense, attack)
    details = []
    if success.status == "ok" and success.value is not None and measure.status in ("ok", "n/a"):
        attacked = success.n_attacked or success.n
        details.append(
            f"fooled {formats.rate(success.value)}" + (f" of {span(attacked)}" if attacked else "")
        )
    paper = (
        paper_value("auc", data, defense, attack, block.threat, block.detector) if metric == "auc" else None
    )
    marks = collapse_marks(result, cube, footnotes, block, data, defense)
    return make_cell(metric, measure, footnotes, details=details, paper=paper, marks=marks)


def _detection_caption(result: StudyResult, block: Block, metric: str, measures: list[Measure]) -> str:
    count = captions.count_of(measures, "pairs")
    parts = [
        "AUC of telling adversarial from clean images.",
        captions.setting(result, block),
        f"Evaluation rule: {captions.RULES[metric]}{'; ' + count if count else ''}.",
        captions.seeds_of(measures, "the 95 % bootstrap interval"),
        '"Fooled" is the share of the attacked images (those classified correctly) that ended misclassified.',
    ]
    return captions.sentences(parts)


def _accuracy_floor(strips: list[Strip]) -> float:
    lowest = min(
        (number for s in strips for number in (s.value, s.low, s.paper) if number is not None), default=0.0
    )
    return max(floor for floor in (0.0, 0.5, 0.8, 0.9, 0.95) if floor <= max(lowest, 0.0))


def _strips(rows: list[TableRow]) -> list[Strip]:
    return [cell.strip for row in rows for cell in row.cells if cell.strip]


def _has_paper(rows: list[TableRow]) -> bool:
    return any(cell.paper for row in rows for cell in row.cells)


def _sentence(text: str) -> str:
    return f"{text}." if text else ""
