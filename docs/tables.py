"""Write the tables of README.md and docs/*.md from the committed results (python docs/tables.py).

A table stands between ``<!-- table: STUDY[,STUDY] metric=auc ... -->`` and ``<!-- end -->``. A study is a folder of
results/; the words after it are ``metric=`` (default auc), ``defenses=ce,rce,pdm`` (columns), ``attacks=`` (rows, for
each data set) and ``threat=gray_box``. Cells are as a report has them: mean over the seeds, its interval, n.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from pdm_lightning.report import formats
from pdm_lightning.report.cells import CLEAN, Block, Cube, Measure
from pdm_lightning.report.published import paper_value
from pdm_lightning.report.rows import read_csv
from pdm_lightning.report.tables import limits

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = re.compile(r"(<!-- table: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
DEFAULTS = {
    "metric": "auc",
    "defenses": "ce,rce,pdm",
    "attacks": "fgsm_005,fgsm_010,bim_005,bim_010,cw,cw_hc,jsma",
    "threat": "gray_box",
}
#: Whose published numbers stand beside those of a copy of a data set, and how they are called there.
COPIES = {"cifar10_jpeg": ("cifar10", "paper (CIFAR-10)")}
LABELS = {"mnist": "MNIST"}


def page(text: str) -> str:
    """A page with its tables as the results are today."""
    return MARK.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", text)


def table(words: str) -> str:
    """The table that a mark asks for; ValueError for an unknown word."""
    studies, *more = words.split()
    asked = DEFAULTS | dict(word.split("=", 1) for word in more)
    if asked.keys() - DEFAULTS.keys():
        raise ValueError(f"{words}: known are {', '.join(DEFAULTS)}")
    cubes = [Cube(read_csv(ROOT / "results" / study / "results.csv")) for study in studies.split(",")]
    defenses, attacks = asked["defenses"].split(","), asked["attacks"].split(",")
    clean = any(row.metric == asked["metric"] and row.attack == CLEAN for cube in cubes for row in cube.rows)
    lines = [
        [_place(data, attack), *(_cell(cube, asked, data, name, attack) for name in defenses)]
        for cube in cubes
        for data in dict.fromkeys(row.data for row in cube.rows)
        for attack in ([CLEAN] if clean else attacks)
    ]
    head = ["", *(_label("defense", name) for name in defenses)]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *lines])


def _place(data: str, attack: str) -> str:
    own = LABELS.get(data, data)
    return own if attack == CLEAN else f"{own}, {_label('attack', attack)}"


def _cell(cube: Cube, asked: dict[str, str], data: str, defense: str, attack: str) -> str:
    metric = asked["metric"]
    found = next(cube.select(data=data, defense=defense, metric=metric, attack=attack), None)
    budget, model = (found.budget, found.model) if found else ("", "")
    rows = cube.select(budget=budget, model=model, threat=asked["threat"], detector="kde", attack=attack)
    rules = {row.bandwidth for row in rows} - {""}
    block = Block(
        budget, model, asked["threat"], "kde", min(rules, default="", key=lambda rule: len(str(rule)))
    )
    measure = cube.measure(metric, block, data, defense, attack)
    original, whose = COPIES.get(data, (data, "paper"))
    paper = paper_value(metric, original, defense, attack, asked["threat"])
    told = [*_told(metric, measure)]
    if paper is not None:
        shown = formats.percent(paper) if metric == "accuracy" else formats.published_fraction(paper)
        told.append(f"{whose} {shown}")
    return ", ".join(told)


def _told(metric: str, measure: Measure) -> Iterator[str]:
    n = "" if measure.n is None else " to ".join(f"{number:,}" for number in sorted(set(measure.n)))
    if measure.value is None:
        yield f"{measure.status}, n = {n}" if n else measure.status
        return
    low, high = limits(metric, measure)
    value = f"**{formats.metric_value(metric, measure.value)}**"
    if low is None or high is None:
        yield value
    else:
        bounds = (formats.metric_bound(metric, end) for end in (low, high))
        yield f"{value} [{', '.join(bounds)}]"
    if n:
        yield f"n = {n}"


def _label(group: str, name: str) -> str:
    """As reports call an option: ``cw_wb[confidence=1]`` has the label of ``cw_wb`` and what was overridden."""
    own, bracket, changed = name.partition("[")
    option = yaml.safe_load((ROOT / "conf" / group / f"{own}.yaml").read_text(encoding="utf-8"))
    return f"{option.get('label', own)}{bracket}{changed}"


if __name__ == "__main__":
    stale = 0
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = page(old)
        stale += new != old
        path.write_text(new, encoding="utf-8")
    print(f"{stale} pages changed")
    sys.exit(0)
