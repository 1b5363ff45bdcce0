"""Tables as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from pdm_lightning.report.tables import Cell, Table, TableRow

#: Above this many rows a LaTeX table is a ``longtable``, which breaks over pages.
LONG_TABLE_ROWS = 40
NEEDS = "% needs \\usepackage{booktabs,graphicx,longtable}\n"

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "\u2020": r"\dag{}",
    "\u2021": r"\ddag{}",
    "\u00b1": r"$\pm$",
    "\u00d7": r"$\times$",
    "\u2013": "--",
    "\u2212": "$-$",
    "\n": " ",
}
_MARKDOWN = {char: "\\" + char for char in "\\`*_[]|~#"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "}


def latex_escape(text: str) -> str:
    """`text` with every character that LaTeX reads as a command made printable."""
    return "".join(_LATEX.get(char, char) for char in text)


def markdown_escape(text: str) -> str:
    """`text` with Markdown's and HTML's special characters made printable."""
    return "".join(_MARKDOWN.get(char, char) for char in text)


def cell_lines(cell: Cell) -> list[str]:
    """The lines of a cell: value and interval; a warning; n and details; the paper's number."""
    first = " ".join(part for part in (cell.value + cell.marks, cell.interval) if part)
    second = ", ".join(part for part in (f"n = {cell.n}" if cell.n else "", *cell.details) if part)
    third = f"paper {cell.paper}" if cell.paper else ""
    return [line for line in (first, cell.warning, second, third) if line]


def markdown(table: Table) -> str:
    """The table with title, caption and footnotes."""
    parts = (f"### {markdown_escape(table.title)}", markdown_escape(table.caption), grid(table))
    return "\n\n".join(parts)


def grid(table: Table) -> str:
    """Its cells and footnotes alone; a group of columns is part of each column's name."""
    names = [f"{column.group}: {column.label}" if column.group else column.label for column in table.columns]
    sectioned = any(row.section for row in table.rows)
    header = [*(["Of"] if sectioned else []), table.row_header, *names]
    lines = [_markdown_line(markdown_escape(name) for name in header)]
    lines.append("|" + "|".join(["---"] * (len(header) - len(names)) + ["---:"] * len(names)) + "|")
    for row in table.rows:
        label = markdown_escape(row.label + row.marks)
        cells = ["<br>".join(markdown_escape(line) for line in cell_lines(cell)) for cell in row.cells]
        lines.append(_markdown_line([*([markdown_escape(row.section)] if sectioned else []), label, *cells]))
    notes = "".join(f"- {markdown_escape(note)}\n" for note in table.footnotes)
    return "\n".join(lines) + "\n" + (f"\n{notes}" if notes else "")


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def latex(table: Table) -> str:
    r"""The table as LaTeX; needs ``\usepackage{booktabs,graphicx,longtable}``."""
    wide = len(table.columns) + 1
    body = "\n".join(_latex_rows(table.rows, wide))
    head = "\n".join(_latex_header(table))
    spec = "l" + "r" * len(table.columns)
    caption = f"\\caption{{{latex_escape(f'{table.title}. {table.caption}')}}}\n\\label{{tab:{table.name}}}"
    notes = "\n".join(f"\\par\\raggedright {latex_escape(note)}" for note in table.footnotes)
    if len(table.rows) > LONG_TABLE_ROWS:
        inner = (
            # the caption and its label on the first page alone
            f"\\begin{{longtable}}{{{spec}}}\n{caption}\\\\\n\\toprule\n{head}\n\\midrule\n\\endfirsthead\n"
            f"\\multicolumn{{{wide}}}{{l}}{{\\textit{{continued}}}}\\\\\n\\toprule\n{head}\n\\midrule\n\\endhead\n"
            f"{body}\n\\bottomrule\n\\end{{longtable}}\n{notes}"
        )
        return f"{NEEDS}\\begingroup\\footnotesize\n{inner}\n\\endgroup\n"
    # shrunk to the line only where the table is wider than it
    fit = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%"
    return (
        f"{NEEDS}\\begin{{table}}[htbp]\n\\centering\\footnotesize\n{caption}\n\\setlength{{\\tabcolsep}}{{4pt}}\n{fit}\n"
        f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{head}\n\\midrule\n{body}\n\\bottomrule\n"
        f"\\end{{tabular}}}}\n{notes}\n\\end{{table}}\n"
    )


def _latex_header(table: Table) -> list[str]:
    lines = []
    if any(column.group for column in table.columns):
        groups = [(name, len(list(run))) for name, run in groupby(column.group for column in table.columns)]
        spans = [f"\\multicolumn{{{width}}}{{c}}{{{latex_escape(name)}}}" for name, width in groups]
        lines.append("& " + " & ".join(spans) + " \\\\")
        start, rules = 2, []
        for name, width in groups:
            if name:
                rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        lines.append("".join(rules))
    labels = [table.row_header, *(column.label for column in table.columns)]
    return [*lines, " & ".join(latex_escape(label) for label in labels) + " \\\\"]


def _latex_rows(rows: list[TableRow], wide: int) -> list[str]:
    lines = []
    for section, run in groupby(rows, key=lambda row: row.section):
        if section:
            lines.append(
                f"\\addlinespace\\multicolumn{{{wide}}}{{l}}{{\\textit{{{latex_escape(section)}}}}} \\\\"
            )
        for row in run:
            cells = [_latex_cell(cell) for cell in row.cells]
            gap = "[3pt]" if any("tabular" in cell for cell in cells) else ""
            lines.append(" & ".join([latex_escape(row.label + row.marks), *cells]) + f" \\\\{gap}")
    return lines


def _latex_cell(cell: Cell) -> str:
    """A narrow column of lines, the value first: a wide table is shrunk, and has to stay legible."""
    number = f"n = {cell.n}" if cell.n else ""
    lines = [cell.value + cell.marks, cell.interval, cell.warning, number, *cell.details]
    lines = [latex_escape(line) for line in [*lines, f"paper {cell.paper}" if cell.paper else ""] if line]
    if len(lines) < 2:
        return "".join(lines)
    small = [f"{{\\scriptsize {line}}}" for line in lines[1:]]
    return "\\begin{tabular}[t]{@{}r@{}}" + "\\\\".join([lines[0], *small]) + "\\end{tabular}"
