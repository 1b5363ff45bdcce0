"""The page of two studies, or two defences, side by side: tables, CSV, HTML."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pdm_lightning.report import formats
from pdm_lightning.report.contrast import HOW
from pdm_lightning.report.matched import NAMES, Pair
from pdm_lightning.report.page import render_page
from pdm_lightning.report.render_text import latex, markdown
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.rows import Row
from pdm_lightning.report.side_by_side_tables import (
    alone_table,
    corrected,
    metric_tables,
    significant,
)
from pdm_lightning.report.tables import Table
from pdm_lightning.report.write import remove_stale, write_atomically

NUMBERS = "compare.csv"
_IN_CSV = NAMES[:-1]


@dataclass
class SideBySide:
    """Two sides and what they say of the same cells.

    Attributes
    ----------
    name : str
        Of the folder.
    title : str
    a, b : str
        How the sides are called.
    pairs : list of Pair
    alone : list of (str, Row)
        ``a`` or ``b``, and a row of it without a partner.
    compared : dict of (str, str)
        What has one value in A and another one in B, by column.
    settings : dict of str
        Shown on the page.
    command, version : str
        What was typed, and the package's version.
    """

    name: str
    title: str
    a: str
    b: str
    pairs: list[Pair]
    alone: list[tuple[str, Row]] = field(default_factory=list)
    compared: dict[str, tuple[str, str]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    command: str = ""
    version: str = ""

    @property
    def tables(self) -> dict[str, Table]:
        """A table for each metric."""
        return metric_tables(self.pairs, self.a, self.b)


def write_side_by_side(folder: Path, result: SideBySide) -> Path:
    """Write ``index.html``, ``compare.csv`` and ``tables/`` into `folder`, each file whole, the page last.

    Returns
    -------
    Path
        The page, ``folder/index.html``.
    """
    tables = [*result.tables.values(), *alone_table(result.alone, result.a, result.b)]
    files = {NUMBERS: side_by_side_csv(result).encode()}
    for table in tables:
        files[f"tables/{table.name}.md"] = markdown(table).encode()
        files[f"tables/{table.name}.tex"] = latex(table).encode()
    head = StudyResult(
        name=result.name,
        title=result.title,
        description=f"A: {result.a}. B: {result.b}. Every difference is A minus B.",
        tables=[],
        notes=notes(result),
        settings=result.settings,
        command=result.command,
        version=result.version,
    )
    files["index.html"] = render_page(head, tables, facts=facts(result), numbers=NUMBERS).encode()
    for name, content in files.items():
        write_atomically(folder / name, content)
    remove_stale(folder, set(files))
    return folder / "index.html"


def facts(result: SideBySide) -> list[tuple[str, str, bool]]:
    """Counts for the head of the page."""
    ways = Counter(pair.contrast.how for pair in result.pairs if pair.contrast.value is not None)
    counts = [(len(result.pairs), "numbers compared"), *((ways[how], text) for how, text in HOW.items())]
    counts += [
        (len(significant(result.pairs)), "differ significantly"),
        (len(result.alone), "without a partner"),
    ]
    return [(f"{number:,}", word, False) for number, word in counts if number]


def notes(result: SideBySide) -> list[str]:
    """What one has to know about the numbers."""
    told = [f"Compared: {column} {a} (A) with {b} (B)." for column, (a, b) in result.compared.items()]
    if len(result.compared) > 1:
        told.append("More than one thing differs: what a difference comes from, these numbers cannot tell.")
    known = result.tables
    empty = dict.fromkeys(
        formats.metric_label(pair.metric) for pair in result.pairs if pair.metric not in known
    )
    if empty:
        told.append(f"No cell has a value on both sides: {'; '.join(empty)}.")
    unpaired = [pair.contrast for pair in result.pairs if pair.contrast.how == "unpaired"]
    whys = Counter(one.why for one in unpaired if one.why and one.value is not None)
    told += [f"{number} unpaired: {why}." for why, number in whys.most_common()]
    if result.alone:
        sides = Counter(side for side, _ in result.alone)
        counts = [
            f"{sides[side]} only in {name}"
            for side, name in (("a", result.a), ("b", result.b))
            if sides[side]
        ]
        told.append(
            f"Without a partner, and so not compared: {formats.words(counts)}; listed at the end, under All numbers."
        )
    return told


def side_by_side_csv(result: SideBySide) -> str:
    """One line a pair, and one for each row without a partner; every digit, None is an empty field."""
    sides = [
        f"{side}{part}"
        for side in "ab"
        for part in ("", "_low", "_high", "_n", "_seeds", "_status", "_artifact")
    ]
    tail = ("difference", "low", "high", "p", "p_corrected", "n", "paired", "why")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cell", *_IN_CSV, "metric", *sides, *tail])
    lifted = corrected(result.pairs)
    for pair in result.pairs:
        numbers: list[object] = []
        for measure, key in ((pair.a, pair.artifacts[0]), (pair.b, pair.artifacts[1])):
            n = measure.n[0] if measure.n else None
            ends = measure.shown or (None, None)
            numbers += [measure.value, *ends, n, measure.seeds_ok, measure.status, key]
        one = pair.contrast
        numbers += [one.value, one.low, one.high, one.p, lifted.get(id(pair)), one.n, one.how, one.why]
        writer.writerow(["both", *(pair.names[name] for name in _IN_CSV), pair.metric, *map(_text, numbers)])
    for side, row in result.alone:
        own = [row.value, row.ci_low, row.ci_high, row.n, row.seed, row.status, row.artifact]
        empty: list[object] = [None] * len(own)
        numbers = [*(own if side == "a" else empty), *(own if side == "b" else empty), *[None] * len(tail)]
        names = (getattr(row, name) for name in _IN_CSV)
        writer.writerow([f"only {side}", *names, row.metric, *map(_text, numbers)])
    return out.getvalue()


def _text(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)
