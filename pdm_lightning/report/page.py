"""The page: one self-contained HTML file, drawn from a template."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from pdm_lightning.claims.render import page as page_of_claims
from pdm_lightning.report import gallery
from pdm_lightning.report.cells import CLEAN
from pdm_lightning.report.contents import MANY_ROWS, embedded, grouped
from pdm_lightning.report.results import MEAN_AUC, StudyResult
from pdm_lightning.report.tables import SHORT_KEY, Column, Table, TableRow

#: What all panels of a page may take, in characters of the page: with the rest it stays under 10 MB.
FIGURES_BUDGET = 6_000_000


def render_page(
    result: StudyResult,
    tables: Sequence[Table],
    *,
    facts: list[tuple[str, str, bool]] | None = None,
    numbers: str = "results.csv",
) -> str:
    """The HTML of the report; every name and note in it is escaped.

    Parameters
    ----------
    result : StudyResult
    tables : sequence of Table
    facts : list of (number, word, whether it is bad news), optional
        For the head of the page, where they do not follow from ``result.rows``.
    numbers : str
        The file beside the page that holds all numbers.
    """
    environment = Environment(
        loader=PackageLoader("pdm_lightning", "report"), autoescape=True, undefined=StrictUndefined
    )
    environment.globals.update(percent=percent, from_right=from_right, runs=runs, starts_group=starts_group)
    environment.globals.update(sections=sections, short_key=SHORT_KEY, many_rows=MANY_ROWS)
    galleries, left_out = gallery.shown(result.gallery)
    return environment.get_template("page.html").render(
        result=result,
        claims=page_of_claims(result),
        groups=grouped(table for table in tables if table.kind != "summary"),
        summaries=[table for table in tables if table.kind == "summary"],
        figures=embedded(result.figures, FIGURES_BUDGET),
        galleries=galleries,
        galleries_note=left_out,
        facts=study_facts(result) if facts is None else facts,
        numbers=numbers,
    )


def study_facts(result: StudyResult) -> list[tuple[str, str, bool]]:
    """What the study holds, for the head of the page: (number, word, whether it is bad news)."""
    rows = [row for row in result.rows if row.metric not in MEAN_AUC]
    out = []
    for column, one, many in (
        ("data", "data set", "data sets"),
        ("model", "model", "models"),
        ("defense", "defence", "defences"),
        ("attack", "attack", "attacks"),
        ("seed", "seed", "seeds"),
    ):
        number = len({getattr(row, column) for row in rows} - {"", CLEAN})
        if number:
            out.append((str(number), one if number == 1 else many, False))
    for status, word in (("ok", "values"), ("n/a", "too few examples"), ("failed", "values failed")):
        number = sum(row.status == status for row in rows)
        if number:
            out.append((f"{number:,}", word, status == "failed"))
    return out


def percent(scale: tuple[float, float], value: float) -> str:
    """Where `value` lies on `scale`, in percent of it, kept inside."""
    low, high = scale
    return f"{100 * min(max((value - low) / (high - low), 0.0), 1.0):.1f}"


def from_right(scale: tuple[float, float], value: float) -> str:
    """The same, measured from the right end."""
    return f"{100 - float(percent(scale, value)):.1f}"


def runs(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Neighbouring columns of one group: (group, how many)."""
    return [(name, len(list(run))) for name, run in groupby(column.group for column in columns)]


def sections(rows: Sequence[TableRow]) -> list[tuple[str, list[TableRow]]]:
    """Neighbouring rows of one section: (section, rows)."""
    return [(name, list(run)) for name, run in groupby(rows, key=lambda row: row.section)]


def starts_group(columns: Sequence[Column], position: int) -> bool:
    """Whether a new, named group of columns starts at `position`."""
    group = columns[position].group
    return bool(group) and (position == 0 or columns[position - 1].group != group)
