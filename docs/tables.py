"""Write the tables of README.md and docs/*.md from the committed results (python docs/tables.py).

A table stands between ``<!-- table: STUDY[,STUDY] metric=auc ... -->`` and ``<!-- end -->``. A study is a folder of
results/; the words after it are ``metric=auc``, ``defenses=ce,rce,pdm`` (columns), ``attacks=`` (rows, for each data
set), ``threat=gray_box``, ``detector=kde``, ``bandwidth=validation``, and, where a study has several, ``budget=`` and
``model=``. Cells and footnotes are those of a report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from pdm_lightning.report import captions
from pdm_lightning.report.cells import CLEAN, Block, Cube, Measure
from pdm_lightning.report.published import paper_value
from pdm_lightning.report.render_text import grid
from pdm_lightning.report.results import StudyResult
from pdm_lightning.report.rows import read_csv
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
#: Whose published numbers stand beside those of a copy of a data set.
COPIES = {"cifar10_jpeg": "cifar10"}


def page(text: str) -> str:
    """A page with its tables as the results are today."""
    return MARK.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", text)


def table(words: str) -> str:
    """The table that a mark asks for; ValueError for an unknown word, or one that it has to have."""
    studies, *more = words.split()
    asked = DEFAULTS | dict(word.split("=", 1) for word in more)
    if asked.keys() - DEFAULTS.keys():
        raise ValueError(f"{words}: known are {', '.join(DEFAULTS)}")
    defenses, footnotes = asked["defenses"].split(","), Footnotes()
    rows: list[TableRow] = []
    measures: list[Measure] = []
    labels = _labels(defenses, asked["attacks"].split(","))
    for study in studies.split(","):
        cube = Cube(read_csv(ROOT / "results" / study / "results.csv"))
        for row, found in _rows(cube, _block(cube, words, asked), asked, labels, footnotes):
            rows.append(row)
            measures += found
    columns = [Column(labels.label("defense", name)) for name in defenses]
    made = Table("", "", "", "", "", columns, rows)
    if any(cell.paper for row in rows for cell in row.cells):
        copies = any(name in row.label for row in rows for name in COPIES)
        footnotes.add(
            f"paper: for ResNet-56 and its full training{', on CIFAR-10 itself' if copies else ''}."
        )
    if seeds := captions.seeds_of(measures, "the 95 % interval"):
        footnotes.add(seeds)
    made.footnotes = footnotes.lines()
    return grid(made)


def _block(cube: Cube, words: str, asked: dict[str, str]) -> Block:
    """Where the cells are: of budgets and models the one there is, or the one asked for."""
    found = {}
    for column in ("budget", "model"):
        values = {getattr(row, column) for row in cube.rows} - {""}
        if not asked[column] and len(values) > 1:
            raise ValueError(f"{words}: add {column}= (one of {', '.join(sorted(values))})")
        found[column] = asked[column] or next(iter(values), "")
    return Block(found["budget"], found["model"], asked["threat"], asked["detector"], asked["bandwidth"])


def _rows(
    cube: Cube,
    block: Block,
    asked: dict[str, str],
    labels: StudyResult,
    footnotes: Footnotes,
) -> Iterator[tuple[TableRow, list[Measure]]]:
    """A row, and what it shows, for each data set and attack; of what is measured on clean images for each data set."""
    metric, defenses = asked["metric"], asked["defenses"].split(",")
    clean = any(cube.select(metric=metric, attack=CLEAN))
    for data in labels.ordered("data", (row.data for row in cube.rows)):
        for attack in [CLEAN] if clean else asked["attacks"].split(","):
            line = [(data, cube.measure(metric, block, data, name, attack)) for name in defenses]
            cells: list[Cell] = []
            for name, (_, measure) in zip(defenses, line, strict=True):
                marks = collapse_marks(labels, cube, footnotes, block, data, name)
                paper = paper_value(metric, COPIES.get(data, data), name, attack, block.threat)
                warning = ""
                if metric == "distortion":
                    warning = censored(cube.measure("success_rate", block, data, name, attack))
                if warning:
                    footnotes.add(CENSORED)
                cells.append(make_cell(metric, measure, footnotes, paper=paper, marks=marks, warning=warning))
            told = [labels.label("data", data), *([] if clean else [labels.label("attack", attack)])]
            marks = capped_marks(labels, footnotes, line, attack)
            yield TableRow(", ".join(told), cells, marks), [measure for _, measure in line]


def _labels(defenses: list[str], attacks: list[str]) -> StudyResult:
    """As reports call an option: ``cw_wb[confidence=1]`` has the label of ``cw_wb`` and what was overridden."""
    made: dict[str, dict[str, str]] = {"data": {"mnist": "MNIST"}}
    for group, names in (("defense", defenses), ("attack", attacks)):
        for name in names:
            own, bracket, changed = name.partition("[")
            option = yaml.safe_load((ROOT / "conf" / group / f"{own}.yaml").read_text(encoding="utf-8"))
            made.setdefault(group, {})[name] = f"{option.get('label', own)}{bracket}{changed}"
    return StudyResult("", "", labels=made)


if __name__ == "__main__":
    stale = 0
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = page(old)
        stale += new != old
        path.write_text(new, encoding="utf-8")
    print(f"{stale} pages changed")
