"""The page: one self-contained HTML file, drawn from a template."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pdm_lightning.claims.render import page as page_of_claims
from pdm_lightning.report.cells import CLEAN
from pdm_lightning.report.palette import DARK, LIGHT
from pdm_lightning.report.results import MEAN_AUC, Figure, StudyResult
from pdm_lightning.report.tables import Column, Table


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
    return environment.get_template("page.html").render(
        result=result,
        claims=page_of_claims(result),
        main_tables=[table for table in tables if table.kind != "summary"],
        summaries=[table for table in tables if table.kind == "summary"],
        figures=[_figure(figure) for figure in result.figures],
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


def starts_group(columns: Sequence[Column], position: int) -> bool:
    """Whether a new, named group of columns starts at `position`."""
    group = columns[position].group
    return bool(group) and (position == 0 or columns[position - 1].group != group)


def _figure(figure: Figure) -> dict[str, Any]:
    from pdm_lightning.report.figures import panel_png  # matplotlib writes its caches when it is imported

    panels = []
    for panel in figure.panels:
        light, dark = (base64.b64encode(panel_png(figure, panel, theme)).decode() for theme in (LIGHT, DARK))
        panels.append({"light": light, "dark": dark, "alt": f"{figure.title}: {panel.get('title', '')}"})
    return {"name": figure.name, "title": figure.title, "caption": figure.caption, "panels": panels}
