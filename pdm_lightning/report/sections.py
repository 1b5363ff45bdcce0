"""Rows of a long table: a defence a row, in sections of attack and data set."""

from __future__ import annotations

from collections.abc import Callable

from pdm_lightning.report.cells import Block, Cube
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import Cell, Footnotes, TableRow, capped_marks, collapse_marks

#: (data, defence, attack) -> the cells of the row.
Cells = Callable[[str, str, str], list[Cell]]


def defence_rows(
    result: StudyResult, cube: Cube, block: Block, metric: str, footnotes: Footnotes, cells: Cells
) -> list[TableRow]:
    """The rows of every (data, defence, attack) in `block` that has something to say of `metric`.

    Parameters
    ----------
    cells : callable
        Makes the cells of (data, defence, attack).
    """
    known = cube.attacked(metric, block)
    rows = []
    for data in result.ordered("data", (cell[0] for cell in known)):
        for attack in result.ordered("attack", (cell[2] for cell in known if cell[0] == data)):
            defenses = result.ordered("defense", (d for place, d, a in known if (place, a) == (data, attack)))
            line = [(data, cube.measure(metric, block, data, defense, attack)) for defense in defenses]
            marks = capped_marks(result, footnotes, line, attack)
            section = f"{result.label('attack', attack)}{marks} on {result.label('data', data)}"
            for defense in defenses:
                mark = collapse_marks(result, cube, footnotes, block, data, defense)
                label = result.label("defense", defense)
                rows.append(TableRow(label, cells(data, defense, attack), mark, section))
    return rows
