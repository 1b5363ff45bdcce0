"""The verdicts in a terminal, in Markdown and LaTeX, and arranged for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pdm_lightning.claims.verdicts import (
    NOT_MEASURED,
    REFUTED,
    REPRODUCED,
    UNDECIDED,
    VERDICTS,
    Judged,
    tally,
)
from pdm_lightning.report import formats
from pdm_lightning.report.cells import CLEAN, split_note

if TYPE_CHECKING:
    from pdm_lightning.report.results import StudyResult
    from pdm_lightning.report.rows import Row

TITLE = "The paper's claims, judged on this study"
STYLES = {REPRODUCED: "green", REFUTED: "bold red", UNDECIDED: "yellow", NOT_MEASURED: "dim"}
HOW = (
    "By 95 % intervals: reproduced where the whole interval agrees with the claim, not reproduced where the whole "
    "interval disagrees, undecided where it does both or there is none. A claim of several comparisons is reproduced "
    "where all are, and not reproduced where one disagrees even after Holm's correction for their number. Detection is "
    "that of the kernel density at its validation bandwidth, where no other is named. Two measures "
    "are combined as if independent; several seeds are paired, and decide only as far as their images do. Undecided as "
    "well: what rests on a collapsed training, two sides of different seeds, and a white-box distortion at which "
    "detection was not breached (AUC above .5)."
)
ELSEWHERE = "On other data, of which the paper says nothing"


def caveat(rows: Iterable[Row], labels: Mapping[str, Mapping[str, str]]) -> str:
    """How far these verdicts reach: this study's models, budget and seeds, beside the paper's."""
    rows = list(rows)
    models = [_label(labels, "model", name) for name in _names(rows, "model") if name != "resnet56"]
    budgets = [name for name in _names(rows, "budget") if name != "paper"]
    notes = {part for row in rows for part in split_note(row.note)}
    smaller = {
        f"model {formats.words(models)} (the paper: ResNet-56)": bool(models),
        f"budget {formats.words(budgets)} (the paper: 80 epochs on MNIST, 400 on CIFAR-10)": bool(budgets),
        "capped attacks": any(note.startswith("capped") for note in notes),
        "collapsed trainings": "collapsed" in notes,
    }
    lone = "one seed, so that the intervals hold the chance of the images and not that of the training"
    full = " at its full budget" if any(smaller.values()) else ""
    told = smaller | {lone: len({row.seed for row in rows}) == 1}
    short = [text for text, holds in told.items() if holds]
    reach = (
        "These verdicts are on the numbers of this study: 'not reproduced' says that they do not show a claim"
    )
    if not short:
        return f"{reach}."
    back = f", and 'reproduced' is no reproduction of the paper{full}" if full else ""
    return f"{reach}, which is no refutation of the paper{full}{back}. Here: {'; '.join(short)}."


def print_claims(result: StudyResult, console: Console) -> None:
    """Print how many claims came to what, and those not reproduced."""
    refuted = [one for one in result.claims if one.verdict == REFUTED]
    if refuted:
        table = Table(
            box=box.SIMPLE_HEAD, title="Claims of the paper, not reproduced here", title_justify="left"
        )
        for column in ("Claim", "On", "Why"):
            table.add_column(column)
        for one in refuted:
            table.add_row(escape(one.claim), escape(one.place), escape(one.says))
        console.print(table)
        console.print(caveat(result.rows, result.labels), markup=False, highlight=False)
    console.print(f"Claims of the paper: {counted(result.claims)}; claims.md has them all", highlight=False)


def counted(judged: Sequence[Judged]) -> str:
    """``12 reproduced, 5 not reproduced, 20 undecided, 27 not measured; on other data: 3 reproduced, ...``."""
    told = ", ".join(f"{number} {verdict}" for verdict, number in tally(_of(judged, other=False)).items())
    others = tally(_of(judged, other=True))
    if not sum(others.values()):
        return told
    return f"{told}; on other data: {', '.join(f'{number} {verdict}' for verdict, number in others.items() if number)}"


def _of(judged: Iterable[Judged], *, other: bool) -> list[Judged]:
    """Those on the paper's own data, and those of which nothing was measured; or those on other data."""
    return [one for one in judged if one.other == other]


def _headed(judged: Sequence[Judged]) -> list[tuple[str, list[Judged]]]:
    """The claims by section of the paper; those on other data after all of them."""
    found = [(section, group) for section, group in _sections(_of(judged, other=False))]
    found += [(f"{ELSEWHERE}: {section}", group) for section, group in _sections(_of(judged, other=True))]
    return found


def markdown(result: StudyResult) -> str:
    """All verdicts as tables in Markdown, a section of the paper each, with the caveat above."""
    from pdm_lightning.report.render_text import markdown_escape

    lines = [
        f"# {TITLE}",
        "",
        counted(result.claims),
        "",
        markdown_escape(caveat(result.rows, result.labels)),
        "",
        HOW,
    ]
    for section, group in _headed(result.claims):
        lines += [
            "",
            f"## {markdown_escape(section)}",
            "",
            "| Claim | Where | On | Verdict | Why |",
            "|---|---|---|---|---|",
        ]
        for one in group:
            verdict = f"**{one.verdict}**" if one.verdict == REFUTED else one.verdict
            cells = [markdown_escape(text) for text in (one.claim, one.where, one.place)]
            lines.append(f"| {' | '.join([*cells, verdict, markdown_escape(one.says)])} |")
    return "\n".join(lines) + "\n"


def latex(result: StudyResult) -> str:
    r"""The same as LaTeX, a long table; needs ``\usepackage{booktabs,longtable}``."""
    from pdm_lightning.report.render_text import latex_escape

    lines = [
        "% needs \\usepackage{booktabs,longtable}",
        "\\begingroup\\footnotesize\\raggedright",
        "\\begin{longtable}{p{.4\\linewidth}p{.14\\linewidth}p{.36\\linewidth}}",
        f"\\caption{{{latex_escape(f'{TITLE}: {counted(result.claims)}.')}}}\\\\",
        "\\toprule",
        "Claim & Verdict & Why \\\\",
        "\\midrule",
        "\\endhead",
    ]
    for section, group in _headed(result.claims):
        lines.append(f"\\multicolumn{{3}}{{l}}{{\\textit{{{latex_escape(section)}}}}} \\\\*")
        for one in group:
            why = f"{one.place}. {one.says}" if one.place else one.says
            lines.append(f"{' & '.join(latex_escape(text) for text in (one.claim, one.verdict, why))} \\\\")
    notes = latex_escape(f"{caveat(result.rows, result.labels)} {HOW}")
    return "\n".join([*lines, "\\bottomrule", "\\end{longtable}", notes, "\\par\\endgroup"]) + "\n"


def page(result: StudyResult) -> dict[str, Any] | None:
    """What the page shows; None for no claim.

    Counts and the claims judged, by section, on the paper's data and on other data; caveat; those not measured.
    """
    if not result.claims:
        return None
    own, others = (_of(result.claims, other=other) for other in (False, True))
    judged = [one for one in result.claims if one.verdict != NOT_MEASURED]
    return {
        "title": TITLE,
        "counts": tally(own),
        "caveat": caveat(result.rows, result.labels),
        "how": HOW,
        "sections": _sections(_judged(own)),
        "elsewhere": ELSEWHERE,
        "other_counts": tally(others),
        "other_sections": _sections(_judged(others)),
        "unmeasured": _sections(one for one in result.claims if one.verdict == NOT_MEASURED),
        "several": len({(one.data, one.model, one.budget) for one in judged}) > 1,
        "classes": {verdict: verdict.replace(" ", "-") for verdict in VERDICTS},
    }


def _judged(found: Iterable[Judged]) -> list[Judged]:
    return [one for one in found if one.verdict != NOT_MEASURED]


def _sections(judged: Iterable[Judged]) -> list[tuple[str, list[Judged]]]:
    return [(section, list(group)) for section, group in groupby(judged, key=lambda one: one.section)]


def _names(rows: Sequence[Row], column: str) -> list[str]:
    """Names in a column, of what was attacked or measured clean; an empty one is none."""
    return [name for name in dict.fromkeys(getattr(row, column) for row in rows) if name not in ("", CLEAN)]


def _label(labels: Mapping[str, Mapping[str, str]], column: str, name: str) -> str:
    return labels.get(column, {}).get(name, name)
