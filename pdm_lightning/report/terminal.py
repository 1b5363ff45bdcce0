"""Tables in the terminal: compact cells, at most 100 columns wide, plain where there is no terminal."""

from __future__ import annotations

from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from pdm_lightning.report.build import build_tables
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.tables import PLUS_MINUS, Cell, Table

WIDTH = 100
_LONG = {"summary", "timings"}
#: For terminals and files that cannot show more than ASCII.
_ASCII = {"\u2020": "+", "\u2021": "++", "\u00b1": "+-", "\u2013": "--"}
_STYLES = {"failed": "bold red", "n/a": "dim", "missing": "dim", "refused": "dim"}


def print_tables(result: StudyResult, console: Console) -> None:
    """Print the study's tables; a table too wide for the console is printed in parts.

    The ``summary`` is printed only if the study asks for no other table, or covers one defence on one data
    set: else it repeats the others at length, and the report has it. So it is with ``timings``.
    """
    cells = {(row.data, row.defense) for row in result.rows}
    for table in build_tables(result):
        if table.kind in _LONG and len(cells) > 1 and not set(result.tables) <= _LONG:
            continue
        print_table(table, console)


def print_table(table: Table, console: Console, *, widest: int = WIDTH) -> None:
    """Print one table, at most `widest` columns wide, in parts where it is too wide for the console."""
    width = min(console.width, widest)
    plain = not console.encoding.lower().startswith("utf")
    console.print(Text(_text(table.title, plain), style="bold"), width=width)
    for columns in _parts(table, width):
        console.print(_rich_table(table, columns, plain), width=width)
    for note in table.footnotes:
        console.print(Text(_text(note, plain), style="dim"), width=width)
    console.print()


def _parts(table: Table, width: int) -> list[list[int]]:
    """Columns in runs that fit `width`, whole groups where they fit; every run repeats the row labels."""
    labels = [text for row in table.rows for text in (row.label + row.marks, row.section)]
    first = min(max(map(len, [table.row_header, *labels])) + 2, width // 2)  # longer ones are wrapped
    needed = [_column_width(table, position) for position in range(len(table.columns))]
    groups = [list(run) for _, run in groupby(range(len(needed)), key=lambda k: table.columns[k].group)]
    room = width - first
    runs: list[list[int]] = []
    for group in groups:
        whole = sum(needed[k] for k in group) <= room
        for piece in [group] if whole else [[k] for k in group]:
            fits = runs and sum(needed[k] for k in runs[-1] + piece) <= room
            # a group that has to be cut starts on a line of its own
            if fits and (whole or piece[0] != group[0]):
                runs[-1].extend(piece)
            else:
                runs.append(list(piece))
    return runs


def _column_width(table: Table, position: int) -> int:
    lines = [table.columns[position].label, table.columns[position].group]
    lines += [line for row in table.rows for line in _lines(row.cells[position], table.intervals)]
    return max(len(line) for line in lines) + 3


def _rich_table(table: Table, columns: list[int], plain: bool) -> RichTable:
    out = RichTable(box=box.SIMPLE_HEAD if not plain else box.ASCII2, pad_edge=False, show_edge=False)
    out.add_column(Text(_text(table.row_header, plain)))
    grouped, shown = any(table.columns[position].group for position in columns), ""
    for position in columns:
        column = table.columns[position]
        header = column.label
        if grouped:
            group = column.group if column.group != shown else ""
            shown, header = column.group, f"{group}\n{header}"
        out.add_column(Text(_text(header, plain)), justify="right", no_wrap=True)
    section = ""
    for row in table.rows:
        if row.section != section:
            section = row.section
            out.add_row(Text(_text(section, plain), style="italic"))
        cells = [_cell(row.cells[position], plain, table.intervals) for position in columns]
        out.add_row(Text(_text(row.label + row.marks, plain)), *cells)
    return out


def _cell(cell: Cell, plain: bool, intervals: bool) -> Text:
    lines = _lines(cell, intervals)
    text = Text(_text(lines[0] if lines else "", plain), style=_STYLES.get(cell.status, ""))
    for line in lines[1:]:
        text.append("\n" + _text(line, plain), style="dim")
    return text


def _lines(cell: Cell, intervals: bool) -> list[str]:
    """A cell's lines: ``.987 n=512``, or ``.987 ± .004 [.976, .998]`` over several seeds.

    Below it stand, where they are asked for, the interval and details, a warning and the paper's number.
    """
    number = f"n={cell.n}" if cell.n else ""
    spread = number if intervals else cell.interval if cell.interval.startswith(PLUS_MINUS) else number
    first = " ".join(part for part in (cell.value + cell.marks, spread) if part)
    more = [cell.interval, *cell.details] if intervals else []
    lines = (first, *more, cell.warning, f"paper {cell.paper}" if cell.paper else "")
    return [line for line in lines if line]


def _text(text: str, plain: bool) -> str:
    if not plain:
        return text
    text = "".join(_ASCII.get(char, char) for char in text)
    return text.encode("ascii", "replace").decode("ascii")
