"""Classifier and detector judged together, attack by attack and in the worst case over all of them."""

from __future__ import annotations

from dataclasses import replace

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import CLEAN, WORST_CASE, Block, Cube, Measure
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import (
    Cell,
    Column,
    Footnotes,
    Table,
    TableRow,
    capped_marks,
    collapse_marks,
    make_cell,
)

MEANING = {
    "joint_success": (
        "Share of the attacked images (those classified correctly) whose adversarial version is misclassified and "
        "not flagged; smaller: the better defence."
    ),
    "robust_accuracy": (
        "Share of all images tried whose clean version is classified correctly and not flagged, and whose "
        "adversarial version is flagged or classified correctly; larger: the better defence."
    ),
}
WORST = "Worst case: of each image the attack that does it the most harm, on the images that all of them attacked."


def joint_tables(result: StudyResult, cube: Cube) -> list[Table]:
    """Joint success, and robust accuracy with rejection, at each false-positive rate that the rows name."""
    known = {replace(block, threat=""): None for block in cube.blocks(detection=True) if block.detector}
    blocks = [block for block in known if any(_metrics(cube, block, name) for name in MEANING)]
    # a bandwidth sweep is about distortion; its joint successes stand in the summary
    blocks = [block for block in blocks if block.scale == 1] or blocks
    tables = []
    for block in blocks:
        for name in MEANING:
            metrics = _metrics(cube, block, name)
            valued = [metric for metric in metrics if _has_value(cube, block, metric)]
            silent = [metric for metric in metrics if valued and metric not in valued]
            shown = valued or metrics
            tables += [_table(result, cube, block, blocks, metric, silent) for metric in shown]
    return tables


def _of(block: Block) -> dict[str, str | float]:
    return {name: value for name, value in vars(block).items() if name != "threat"}


def _metrics(cube: Cube, block: Block, name: str) -> list[str]:
    """The metrics of that name in `block`, the largest false-positive rate first."""
    rows = (row for row in cube.select(**_of(block)) if row.attack != CLEAN)
    rates = {row.metric: formats.at_threshold(row.metric) for row in rows}
    return sorted(
        (metric for metric, at in rates.items() if at and at[0] == name),
        key=lambda metric: -float(metric.partition("@")[2]),
    )


def _has_value(cube: Cube, block: Block, metric: str) -> bool:
    return any(row.value is not None for row in cube.select(metric=metric, **_of(block)))


def _table(
    result: StudyResult, cube: Cube, block: Block, blocks: list[Block], metric: str, silent: list[str]
) -> Table:
    name, fpr = formats.at_threshold(metric) or (metric, 0.0)
    threats = [threat for threat in _threats(result, cube, block) if _known(cube, block, threat, metric)]
    columns = result.columns(
        (data, defense) for threat in threats for data, defense, _ in _known(cube, block, threat, metric)
    )
    footnotes, rows, measures = Footnotes(), [], []
    for threat in threats:
        here = replace(block, threat=threat)
        for attack in result.ordered("attack", (cell[2] for cell in _known(cube, block, threat, metric))):
            line = [(data, cube.measure(metric, here, data, defense, attack)) for data, defense in columns]
            cells = [
                _cell(result, cube, here, metric, column, attack, measure, footnotes)
                for column, (_, measure) in zip(columns, line, strict=True)
            ]
            measures += [measure for _, measure in line]
            marks = capped_marks(result, footnotes, line, attack)
            section = _section(result, threat) if len(threats) > 1 else ""
            rows.append(TableRow(result.label("attack", attack), cells, marks, section))
    _explain(footnotes, [metric] if any(m.status == "n/a" for m in measures) else [], silent)
    return Table(
        name=captions.file_name(result, formats.slug(metric), block, blocks),
        kind="joint",
        title=captions.title(formats.metric_label(metric).removesuffix(", %"), result, block, blocks),
        caption=_caption(result, block, threats, name, fpr, measures),
        row_header="Attack",
        columns=[Column(result.label("defense", f), result.label("data", d), (0.0, 1.0)) for d, f in columns],
        rows=rows,
        footnotes=footnotes.lines(),
        strip_legend="0 to 100 %",
    )


def _threats(result: StudyResult, cube: Cube, block: Block) -> list[str]:
    """The threat models of `block`, the worst case last."""
    rows = cube.select(budget=block.budget, model=block.model)
    threats = result.ordered("threat", (row.threat for row in rows if row.attack != CLEAN))
    return sorted(threats, key=lambda threat: threat == WORST_CASE)


def _known(cube: Cube, block: Block, threat: str, metric: str) -> list[tuple[str, str, str]]:
    return cube.attacked(metric, replace(block, threat=threat))


def _cell(
    result: StudyResult,
    cube: Cube,
    block: Block,
    metric: str,
    column: tuple[str, str],
    attack: str,
    measure: Measure,
    footnotes: Footnotes,
) -> Cell:
    """A cell of joint success says how it came about: how many images were fooled, how many of these flagged."""
    name, _, fpr = metric.partition("@")
    details = []
    fooled, flagged = (
        cube.measure(other, block, *column, attack) for other in ("misclassified_rate", f"detected@{fpr}")
    )
    if name == "joint_success" and fooled.value is not None and flagged.value is not None:
        details.append(f"fooled {formats.rate(fooled.value)}, of these {formats.rate(flagged.value)} flagged")
    marks = collapse_marks(result, cube, footnotes, block, *column)
    return make_cell(metric, measure, footnotes, details=details, marks=marks)


def _section(result: StudyResult, threat: str) -> str:
    known = "worst case over all attacks" if threat == WORST_CASE else threat
    text = result.label("threat", threat).replace("_", " ") if known == threat else known
    return text[:1].upper() + text[1:]


def _explain(footnotes: Footnotes, partly: list[str], wholly: list[str]) -> None:
    """Say what a threshold needs: for cells of this table, and for rates that have no table."""
    for metric in [*partly, *wholly]:
        fpr = float(metric.partition("@")[2])
        need = formats.count(10 / fpr) if fpr > 0 else "any number of"
        text = f"A threshold at {formats.false_positives(fpr)} needs {need} clean validation images"
        footnotes.add(
            f"{text}; with fewer, {'no cell has a value' if metric in wholly else 'a cell is n/a'}."
        )


def _caption(
    result: StudyResult, block: Block, threats: list[str], name: str, fpr: float, measures: list[Measure]
) -> str:
    single = threats[0] if len(threats) == 1 else ""
    parts = [
        MEANING[name],
        f"Flagged: the score lies above a threshold, frozen beforehand at {formats.false_positives(fpr)} on clean "
        "validation images.",
        captions.setting(result, replace(block, threat=single)),
        WORST if WORST_CASE in threats else "",
        captions.seeds_of(measures, "the 95 % Wilson interval"),
    ]
    return captions.sentences(parts)
