"""Write the tables of README.md and docs/*.md from the committed results (python docs/tables.py).

A table stands between ``<!-- table: STUDY[,STUDY] metric=auc ... -->`` and ``<!-- end -->``. A study is a folder of
results/; the words after it are ``metric=auc``, ``defenses=ce,rce,pdm`` (columns), ``attacks=`` (rows, for each data
set), ``threat=gray_box``, ``detector=kde``, ``bandwidth=validation``, and, where a study has several, ``budget=`` and
``model=``. Cells and footnotes are those of a report. ``STUDY report=equal_success`` is that table as the study's
report has it, or its part with ``detector=``, ``budget=`` and so on; ``report=ablation`` is the other one, of those
attacks that were not swept over radii. The paper's number, of its own detector, stands beside a defence whose settings
were changed, too. An unknown word is refused, one that is typed twice or says nothing here, and a mark none of whose
cells exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pdm_lightning.errors import nearest
from pdm_lightning.report import build_tables, captions
from pdm_lightning.report.cells import CLEAN, Block, Cube, Measure
from pdm_lightning.report.equal_success_table import radius_of
from pdm_lightning.report.published import paper_value
from pdm_lightning.report.render_text import grid
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.rows import Row, read_csv
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
from pdm_lightning.report.white_box_tables import CENSORED, censored

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = re.compile(r"(<!-- table: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
DEFAULTS = {
    "metric": "auc",
    "defenses": "ce,rce,pdm",
    "attacks": "fgsm_005,fgsm_010,bim_005,bim_010,cw,cw_hc,jsma",
    "threat": "gray_box",
    "detector": "kde",
    "bandwidth": "validation",
    "budget": "",
    "model": "",
}
#: Words that have one value, which is that of a column of results.csv.
SINGLE = ("metric", "budget", "model", "threat", "detector", "bandwidth")
#: Those that choose a part of a report's table.
PARTS = SINGLE[1:]
#: The tables of a report that a page can have.
REPORTED = ("ablation", "equal_success")
#: Whose published numbers stand beside those of a copy of a data set.
COPIES = {"cifar10_jpeg": "cifar10"}


def page(text: str) -> str:
    """A page with its tables as the results are today."""
    return MARK.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", text)


def table(words: str) -> str:
    """The table that a mark asks for.

    Raises
    ------
    ValueError
        The mark, and in the same line what is wrong in it and what there is instead.
    """
    try:
        return _table(*words.split())
    except ValueError as error:
        raise ValueError(f"<!-- table: {words} -->: {error}") from error


def _table(studies: str = "", *words: str) -> str:
    typed: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if not value or key not in (*DEFAULTS, "report"):
            raise ValueError(f"'{word}' is no WORD=VALUE; known are {', '.join(DEFAULTS)}, report")
        if key in typed:
            raise ValueError(f"{key}: typed twice")
        typed[key] = value
    if "report" in typed:
        return _reported(studies, **typed)
    asked = DEFAULTS | typed
    defenses, footnotes = asked["defenses"].split(","), Footnotes()
    rows: list[TableRow] = []
    measures: list[Measure] = []
    labels = _labels(defenses, asked["attacks"].split(","))
    for study in studies.split(","):
        cube = Cube(read_csv(_results(study)))
        if "attacks" in typed and _clean(cube, asked["metric"]):
            raise ValueError(f"metric={asked['metric']} is measured on clean images: leave attacks= out")
        found = list(_rows(cube, _block(study, cube, typed), asked, labels, footnotes))
        if all(measure.status == "missing" for _, line in found for measure in line):
            told = " ".join(f"{word}={value}" for word, value in asked.items() if value)
            raise ValueError(f"no cell of {study} is one of {told}; its results.csv tells which there are")
        rows += [row for row, _ in found]
        measures += [measure for _, line in found for measure in line]
    columns = [Column(labels.label("defense", name)) for name in defenses]
    made = Table("", "", "", "", "", columns, rows)
    if any(cell.paper for row in rows for cell in row.cells):
        copies = any(name in row.label for row in rows for name in COPIES)
        footnotes.add(
            "paper: for ResNet-56 and its full training"
            + (", on CIFAR-10 itself" if copies else "")
            + (", and for defences without the changes in brackets" if "[" in asked["defenses"] else "")
            + "."
        )
    if seeds := captions.seeds_of(measures, "the 95 % interval"):
        footnotes.add(seeds)
    made.footnotes = footnotes.lines()
    return grid(made)


def _reported(study: str, report: str, **typed: str) -> str:
    """A table of a study's report, or of the part of it that is asked for, with its caption."""
    if report not in REPORTED:
        raise ValueError(f"report={report}: {' and '.join(REPORTED)} are known")
    rows = read_csv(_results(study))
    if others := [word for word in typed if word not in PARTS]:
        raise ValueError(f"report={report} is a whole table: leave out {', '.join(others)}")
    for column, word in typed.items():
        _there(study, column, word, _values(column, rows))
        rows = [row for row in rows if str(getattr(row, column)) in ("", word)]
    # a report shows the radii of a sweep at equal success, and hides them elsewhere
    rows = [
        row
        for row in rows
        if row.attack == CLEAN or (report == "equal_success") == (radius_of(row.attack) is not None)
    ]
    attacks = dict.fromkeys(row.attack for row in rows if row.attack != CLEAN)
    labels = _labels(list(dict.fromkeys(row.defense for row in rows)), list(attacks))
    made = build_tables(replace(labels, rows=rows, tables=[report]))
    if not made:
        raise ValueError(f"{study} has no such table: no attack ran at several radii")
    if len(made) > 1:
        raise ValueError(f"{study} has {len(made)} tables of this kind; add some of {', '.join(PARTS)}")
    return grid(replace(made[0], footnotes=[made[0].caption, *made[0].footnotes]))


def _results(study: str) -> Path:
    known = {path.parent.name: path for path in (ROOT / "results").glob("*/results.csv")}
    if study not in known:
        raise ValueError(f"no study '{study}'{_instead(study, known)}")
    return known[study]


def _instead(word: str, known: Iterable[str]) -> str:
    return nearest(word, known) or f"; there are {', '.join(sorted(known)) or 'none'}"


def _values(column: str, rows: Iterable[Row]) -> dict[str, Any]:
    """What stands in a column, by the word that asks for it."""
    return {str(value): value for row in rows if (value := getattr(row, column)) != ""}


def _there(study: str, column: str, word: str, known: Iterable[str]) -> None:
    if word not in known:
        raise ValueError(f"no {column}={word} in {study}{_instead(word, known)}")


def _block(study: str, cube: Cube, typed: dict[str, str]) -> Block:
    """Where the cells are: of budgets and models the one there is, or the one asked for."""
    found: dict[str, Any] = {}
    for column in SINGLE:
        known = _values(column, cube.rows)
        word = typed.get(column, DEFAULTS[column])
        if not word and len(known) > 1:
            raise ValueError(f"add {column}= (one of {', '.join(sorted(known))})")
        if column in typed:
            _there(study, column, word, known)
        found[column] = known.get(word, word) if word else next(iter(known.values()), "")
    del found["metric"]
    return Block(**found)


def _rows(
    cube: Cube,
    block: Block,
    asked: dict[str, str],
    labels: StudyResult,
    footnotes: Footnotes,
) -> Iterator[tuple[TableRow, list[Measure]]]:
    """A row, and what it shows, for each data set and attack; of what is measured on clean images for each data set."""
    metric, defenses = asked["metric"], asked["defenses"].split(",")
    clean = _clean(cube, metric)
    for data in labels.ordered("data", (row.data for row in cube.rows)):
        for attack in [CLEAN] if clean else asked["attacks"].split(","):
            line = [(data, cube.measure(metric, block, data, name, attack)) for name in defenses]
            cells: list[Cell] = []
            for name, (_, measure) in zip(defenses, line, strict=True):
                marks = collapse_marks(labels, cube, footnotes, block, data, name)
                own = name.partition("[")[0]
                copied = COPIES.get(data, data)
                paper = paper_value(metric, copied, own, attack, block.threat, block.detector)
                warning = ""
                if metric == "distortion":
                    warning = censored(cube.measure("success_rate", block, data, name, attack))
                if warning:
                    footnotes.add(CENSORED)
                cells.append(make_cell(metric, measure, footnotes, paper=paper, marks=marks, warning=warning))
            told = [labels.label("data", data), *([] if clean else [labels.label("attack", attack)])]
            marks = capped_marks(labels, footnotes, line, attack)
            yield TableRow(", ".join(told), cells, marks), [measure for _, measure in line]


def _clean(cube: Cube, metric: str) -> bool:
    return any(cube.select(metric=metric, attack=CLEAN))


def _labels(defenses: list[str], attacks: list[str]) -> StudyResult:
    """As reports call an option: ``cw_wb[confidence=1]`` has the label of ``cw_wb`` and what was overridden."""
    made: dict[str, dict[str, str]] = {"data": {"mnist": "MNIST"}}
    for group, names in (("defense", defenses), ("attack", attacks)):
        known = {path.stem: path for path in (ROOT / "conf" / group).glob("*.yaml")}
        labels: dict[str, str] = {}
        for own in dict.fromkeys(name.partition("[")[0] for name in names):
            if own not in known:
                raise ValueError(f"no {group} '{own}'{_instead(own, known)}")
            labels[own] = yaml.safe_load(known[own].read_text(encoding="utf-8")).get("label", own)
        parts = {name: name.partition("[") for name in names}
        made[group] = {
            name: labels[own] + bracket + changed for name, (own, bracket, changed) in parts.items()
        }
    return StudyResult("", "", labels=made)


if __name__ == "__main__":
    stale = 0
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        try:
            new = page(old)
        except ValueError as error:
            raise SystemExit(f"{path.relative_to(ROOT)}: {error}") from error
        stale += new != old
        path.write_text(new, encoding="utf-8")
    print(f"{stale} pages changed")
