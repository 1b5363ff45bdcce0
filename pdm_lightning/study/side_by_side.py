"""``pdml compare A B``: two studies, or two defences, side by side."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from pdm_lightning import __version__
from pdm_lightning.report import formats
from pdm_lightning.report.contrast import Contrast
from pdm_lightning.report.matched import NAMES, ByImage, Matched, match, pair, same, values
from pdm_lightning.report.rows import Row
from pdm_lightning.report.side_by_side import SideBySide, notes, write_side_by_side
from pdm_lightning.report.side_by_side_tables import HEADLINE, family, grouped
from pdm_lightning.report.terminal import print_table
from pdm_lightning.store import Store
from pdm_lightning.study.sides import Side, check_filters, chosen, read_filter, read_side

WIDE = 120
"""Columns that a table may take here."""
SHOWN = 5
"""How many cells without a partner the terminal names."""
_TEXT = """\
A and B: a study's name in <output>/report, the folder of a report, or a results.csv; each may be followed by :defence.
Cells are matched by data, model, budget, defense, threat, attack, detector, bandwidth, seed and metric, but for what
has one value in A and another one in B: that is what is compared. Where the stores hold the artifacts of both,
differences are paired by test image; several seeds are paired seed by seed; else a difference is unpaired, and says so.

key=value chooses by one of these columns, key=value,value by several values. The terminal shows accuracy, AUC and joint
success, or the metrics that metric=... names. All of them are in <output>/compare/<A>-vs-<B>/: index.html, compare.csv,
and the tables as Markdown and LaTeX.

examples
  pdml compare quickstart:ce quickstart:pdm              two defences of one study
  pdml compare table2 table2_adamw                       two studies
  pdml compare table2 results/mnist_table2 attack=bim_010 metric=auc,auc_all
  pdml compare table2:pdm ../other/outputs/report/table2:pdm --output /scratch/pdm"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"compare: {message}; pdml compare --help explains")


def parser() -> argparse.ArgumentParser:
    """Reader of the words after ``pdml compare``."""
    made = _Parser(
        prog="pdml compare",
        usage="pdml compare A B [key=value ...] [--output DIR]",
        description="Two studies, or two defences, side by side, with paired intervals.",
        epilog=_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("words", nargs="*", metavar="A B [key=value ...]", help="what to compare, and filters")
    made.add_argument(
        "--output",
        metavar="DIR",
        default="outputs",
        help="the studies' paths.output (also: paths.output=DIR); default: outputs",
    )
    return made


def is_filter(word: str) -> bool:
    """Whether a word has the form ``key=value``: a path, or a defence after a colon, may hold an equals sign."""
    key, equals, _ = word.partition("=")
    return bool(equals) and not set("/:") & set(key) and not Path(word).exists()


def compare(words: Sequence[str]) -> int:
    """Carry out ``pdml compare ...``.

    Parameters
    ----------
    words : sequence of str
        After ``compare``.

    Returns
    -------
    int
        Exit status 0.

    Raises
    ------
    ValueError
        For words that name no two sides, or sides that have nothing, or everything, in common.
    """
    try:
        given = parser().parse_intermixed_args(list(words))
    except SystemExit:  # argparse has printed the help
        return 0
    output, named = given.output, [word for word in given.words if not is_filter(word)]
    told = [word for word in given.words if is_filter(word)]
    for word in [word for word in told if word.startswith("paths.output=")]:
        told.remove(word)
        output = word.partition("=")[2].strip("'\"")
    if len(named) != 2:
        raise ValueError(
            f"compare takes two studies, A and B, got {len(named)}; pdml compare --help explains"
        )
    filters = [read_filter(word) for word in told]
    folder = Path(os.path.expanduser(output))
    a, b = (read_side(word, folder) for word in named)
    matched = _match(a, b, filters)
    stores = [
        Store(path)
        for path in dict.fromkeys((a.store, b.store, (folder / "store").resolve()))
        if path.is_dir()
    ]
    paired = by_image(stores)
    first, second = _labels(a, b)
    alike = a.path.resolve() == b.path.resolve()
    result = SideBySide(
        f"{formats.slug(a.name)}-vs-{formats.slug(b.name)}",
        f"{a.study}: {first} beside {second}" if alike else f"{first} beside {second}",
        first,
        second,
        [pair(cell, paired) for cell in matched.cells],
        matched.alone,
        matched.compared,
        {
            "A": str(a.path),
            "B": str(b.path),
            "stores": ", ".join(str(store.root) for store in stores) or "none",
        },
        shlex.join(["pdml", "compare", *words]),
        __version__,
    )
    page = write_side_by_side(folder / "compare" / result.name, result)
    _print(result, any(key == "metric" for key, _ in filters), page)
    return 0


def _match(a: Side, b: Side, filters: Sequence[tuple[str, list[str]]]) -> Matched:
    if (a.path.resolve(), a.defense) == (b.path.resolve(), b.defense):
        raise ValueError(
            f"'{a.word}' and '{b.word}' are the same: name two studies, or two defences as STUDY:DEFENCE"
        )
    check_filters(filters, [*a.rows, *b.rows])
    first, second = chosen(a.rows, filters), chosen(b.rows, filters)
    for side, rows in ((a, first), (b, second)):
        if not rows:
            told = " ".join(f"{key}={','.join(names)}" for key, names in filters)
            raise ValueError(
                f"'{side.word}' has nothing that passes {told or 'as a result'}: choose less narrowly"
            )
    matched = match(first, second)
    if not matched.cells:
        raise ValueError(
            f"'{a.word}' and '{b.word}' have no cell in common: {_apart(first, second, matched)}"
        )
    if all(same(*rows) for cell in matched.cells for rows in zip(*cell, strict=True)):
        raise ValueError(
            f"'{a.word}' and '{b.word}' hold the same results in all they have in common: nothing differs"
        )
    return matched


def _apart(a: Sequence[Row], b: Sequence[Row], matched: Matched) -> str:
    """What keeps the sides apart."""
    told = []
    for column in (*NAMES, "metric"):
        first, second = values(a, column), values(b, column)
        if column not in matched.compared and not set(first) & set(second) and (first or second):
            sides = " and ".join(
                f"{', '.join(names) or 'nothing'} in {side}" for names, side in ((first, "A"), (second, "B"))
            )
            told.append(f"{column} is {sides}")
    return "; ".join(told) + ": name cells that both have" if told else "they share every column, but no row"


def _labels(a: Side, b: Side) -> tuple[str, str]:
    """Short names: defences of one study; the words as they were typed, where the names are the same."""
    if a.path.resolve() == b.path.resolve():
        return a.defense or "all", b.defense or "all"
    return (a.name, b.name) if a.name != b.name else (a.word, b.word)


def by_image(stores: Sequence[Store]) -> ByImage:
    """How two rows are compared on the same images: with what stores hold."""
    if not stores:
        return lambda a, b: "there is no store"
    from pdm_lightning.stages.paired import NotPaired, Stored, difference

    def compared(a: Row, b: Row) -> Contrast | str:
        assert a.value is not None and b.value is not None
        try:
            first, second = (
                Stored.find(stores, row.artifact, row.metric, row.value or 0.0) for row in (a, b)
            )
            found = difference(a.metric, first, second)
        except NotPaired as error:
            return str(error)
        return Contrast("images", found.value, found.low, found.high, found.p, found.n)

    return compared


def _print(result: SideBySide, every: bool, page: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)

    def say(line: str) -> None:
        console.print(line, style="dim", highlight=False, markup=False)

    tables = result.tables
    headline = {metric: table for metric, table in tables.items() if family(metric) in HEADLINE}
    for table in (tables if every or not headline else headline).values():
        print_table(table, console, widest=WIDE)
    for note in notes(result):
        say(note)
    cells = grouped(result.alone)
    for (side, cell), metrics in list(cells.items())[:SHOWN]:
        many = f"{len(metrics)} numbers" if len(metrics) > 1 else metrics[0]
        say(f"  only in {result.a if side == 'a' else result.b}: {cell} ({many})")
    if len(cells) > SHOWN:
        say(f"  and {len(cells) - SHOWN} more cells")
    console.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)
