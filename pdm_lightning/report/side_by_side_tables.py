"""Tables of two studies side by side: one a metric, and one of what has no partner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pdm_lightning.report import captions, formats
from pdm_lightning.report.cells import CLEAN
from pdm_lightning.report.contrast import HOW, Contrast
from pdm_lightning.report.difference_tables import ALPHA, HOLM, SEVERAL, STAR, holm
from pdm_lightning.report.matched import NAMES, Pair
from pdm_lightning.report.rows import Row
from pdm_lightning.report.tables import DAGGER, Cell, Column, Footnotes, Strip, Table, TableRow, make_cell

#: How a difference that is paired by image was taken, by the name of the metric; of others: over all test images.
ON = {
    "auc": "images that both attacked and that are fooled in both",
    "detected": "images that both attacked and that are fooled in both",
    "auc_all": "images that both attacked",
    "joint_success": "images that both attacked",
    "misclassified_rate": "images that both attacked",
    "robust_accuracy": "images that both tried",
}
#: What the terminal shows, unless asked for something else; the page shows all.
HEADLINE = ("accuracy", "auc", "joint_success")

SHOWN = 4
"""Metrics without a partner that are named of one cell."""


def family(metric: str) -> str:
    """A metric without its false-positive rate."""
    return metric.partition("@")[0]


def of_cell(names: dict[str, str], shown: Sequence[str]) -> str:
    """A cell's name: what of it is not the same in all cells."""
    parts = [names[name] for name in shown if names[name] and not (name == "attack" and names[name] == CLEAN)]
    return ", ".join(parts) or "clean images"


def corrected(pairs: Iterable[Pair]) -> dict[int, float]:
    """Holm's p-values by the id of their pair, corrected among those of one metric, which stand in one table."""
    by_metric: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.contrast.p is not None:
            by_metric.setdefault(pair.metric, []).append(pair)
    found: dict[int, float] = {}
    for members in by_metric.values():
        lifted = holm([pair.contrast.p for pair in members if pair.contrast.p is not None])
        found |= {id(pair): p for pair, p in zip(members, lifted, strict=True)}
    return found


def significant(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs whose corrected p-value is small."""
    lifted = corrected(pairs)
    return [pair for pair in pairs if lifted.get(id(pair), 1.0) < ALPHA]


def metric_tables(pairs: Sequence[Pair], a: str, b: str) -> dict[str, Table]:
    """A table for each metric that both sides know of some cell, by its name; cells in the order of A.

    What the terminal shows comes first.

    Parameters
    ----------
    pairs : sequence of Pair
    a, b : str
        How the sides are called.
    """
    lifted = corrected(pairs)
    known = dict.fromkeys(pair.metric for pair in pairs if pair.contrast.value is not None)
    metrics = sorted(known, key=_position)
    return {
        metric: _table(metric, [p for p in pairs if p.metric == metric], lifted, a, b) for metric in metrics
    }


def _position(metric: str) -> tuple[bool, int]:
    return family(metric) not in HEADLINE, formats.metric_position(metric)


def _table(metric: str, pairs: list[Pair], lifted: dict[int, float], a: str, b: str) -> Table:
    footnotes = Footnotes()
    shown, fixed = _columns(pairs)
    rows = []
    for pair in pairs:
        sides = [make_cell(metric, measure, footnotes) for measure in (pair.a, pair.b)]
        marks = _capped(pair, footnotes)
        judged = _judged(pair.contrast, lifted.get(id(pair)), footnotes)
        cells = [*sides, _difference(pair, lifted, footnotes), *judged]
        rows.append(TableRow(of_cell(pair.names, shown), cells, marks))
    for way in _ways(metric, pairs):
        footnotes.add(way)
    tested = sum(pair.contrast.p is not None for pair in pairs)
    if tested:
        among = f"{tested} of them; in brackets where it is another p" if tested > 1 else "1 of them"
        footnotes.add(f"{STAR} p below {formats.p_value(ALPHA)} after {HOLM} ({among}).")
    reach = max((abs(x) for p in pairs for x in _limits(p.contrast)), default=0.0)
    scale = (-reach, reach) if reach > 0 else None
    legend = f"0 in the middle, {formats.metric_difference(metric, reach)} at the right end"
    return Table(
        name=formats.slug(metric.replace("@", "-at-")),
        kind="side_by_side",
        title=formats.metric_label(metric),
        caption=_caption(metric, fixed, f"{a} minus {b}", pairs),
        row_header="Cell",
        columns=[Column(a), Column(b), Column("Difference", scale=scale), Column("p"), Column("How")],
        rows=rows,
        footnotes=footnotes.lines(),
        strip_legend=legend if scale else "",
        strip_of="difference",
        intervals=True,
    )


def _columns(pairs: Sequence[Pair]) -> tuple[list[str], dict[str, str]]:
    """The columns that tell the cells of a table apart, and what the others say."""
    shown, fixed = [], {}
    for name in NAMES[:-1]:
        found = {pair.names[name] for pair in pairs}
        if len(found) > 1:
            shown.append(name)
        elif (only := found.pop()) and only != CLEAN and " | " not in only:
            fixed[name] = only
    return shown or [next((name for name in ("attack", "data") if name in fixed), "data")], fixed


def _limits(one: Contrast) -> list[float]:
    return [number for number in (one.low, one.high) if number is not None]


def _difference(pair: Pair, lifted: dict[int, float], footnotes: Footnotes) -> Cell:
    one, metric = pair.contrast, pair.metric
    n = "" if one.n is None else formats.count(one.n)
    if one.value is None:
        footnotes.gap("n/a")
        return Cell(f"n/a (n={n})" if n else "n/a", status="n/a")
    interval = ""
    if one.low is not None and one.high is not None:
        low, high = (formats.metric_difference(metric, limit) for limit in (one.low, one.high))
        interval = f"[{low}, {high}]"
    seeds = one.how == "seeds"
    return Cell(
        formats.metric_difference(metric, one.value),
        interval,
        "" if seeds else n,
        details=(f"{n} seeds",) if seeds else _own(pair, footnotes),
        marks=STAR if lifted.get(id(pair), 1.0) < ALPHA else "",
        sort=one.value,
        strip=None if one.low is None else Strip(one.value, one.low, one.high),
    )


def _own(pair: Pair, footnotes: Footnotes) -> tuple[str, ...]:
    """What the sides' own numbers differ by, where a paired difference is of other images and says something else."""
    a, b, told = pair.a.value, pair.b.value, pair.contrast.value
    if pair.contrast.how != "images" or a is None or b is None or told is None:
        return ()
    own = formats.metric_difference(pair.metric, a - b)
    if own == formats.metric_difference(pair.metric, told):
        return ()
    footnotes.add(OWN)
    return (f"own: {own}",)


OWN = (
    "own: what A's and B's own numbers differ by. A paired difference is of the images that both have, and so of "
    "another quantity; where the two disagree, it is the images that differ and not the detector alone."
)


def _judged(one: Contrast, p: float | None, footnotes: Footnotes) -> list[Cell]:
    """The cells of p and of how it was found."""
    how = Cell() if one.value is None else Cell(HOW[one.how], sort=float(list(HOW).index(one.how)))
    if one.p is None or p is None:
        if one.value is None or one.how == "same":
            return [Cell(), how]
        footnotes.add(
            "p n/a: no test without an interval on both sides, with two seeds, or where none differs."
        )
        return [Cell("n/a", status="n/a"), how]
    told = () if p == one.p else (f"({formats.p_value(p)})",)
    return [Cell(formats.p_value(one.p), details=told, sort=one.p), how]


def _capped(pair: Pair, footnotes: Footnotes) -> str:
    """The dagger of a cell whose attack was capped in A or in B."""
    mark = ""
    for measure in (pair.a, pair.b):
        for note in measure.notes:
            if note.startswith("capped"):
                footnotes.capped(pair.names["attack"], note, pair.names["data"])
                mark = DAGGER
    return mark


def _caption(metric: str, fixed: dict[str, str], what: str, pairs: Sequence[Pair]) -> str:
    where = "; ".join(f"{name} {value}" for name, value in fixed.items())
    points = ", in points" if formats.metric_label(metric).endswith("%") else ""
    sides = captions.seeds_of((side for pair in pairs for side in (pair.a, pair.b)), "the 95 % interval")
    return captions.sentences(
        [
            f"Difference: {what}{points}, with its 95 % interval.",
            f"Of each side: {sides[:1].lower()}{sides[1:]}" if sides else "",
            f"{where[:1].upper()}{where[1:]}." if where else "",
        ]
    )


def _ways(metric: str, pairs: Sequence[Pair]) -> list[str]:
    """How the differences of a table were taken."""
    ways = {pair.contrast.how for pair in pairs if pair.contrast.low is not None}
    images = ON.get(family(metric), "all test images")
    by_image = any(pair.contrast.how == "seeds" and not pair.contrast.why for pair in pairs)
    seeds = f"the seeds' differences, each over {images}" if by_image else "the seeds' differences"
    told = {
        "images": f"by image: over {images}, {_test(metric)}.",
        "seeds": f"by seed: Student's t interval of the mean of {seeds}. {SEVERAL}",
        "unpaired": UNPAIRED,
    }
    return [text for how, text in told.items() if how in ways]


UNPAIRED = (
    "unpaired: from the two intervals, as if the sides had nothing in common; on the same images that is wider than "
    "need be."
)


def _test(metric: str) -> str:
    if family(metric) in ("auc", "auc_all"):
        return "each image drawn for both alike (bootstrap)"
    return "with the interval of a paired difference of rates and McNemar's exact p-value"


def grouped(alone: Sequence[tuple[str, Row]]) -> dict[tuple[str, str], list[str]]:
    """The metrics of rows without a partner, by side (``a`` or ``b``) and cell."""
    shown = [name for name in NAMES if len({str(getattr(row, name)) for _, row in alone}) > 1]
    found: dict[tuple[str, str], list[str]] = {}
    for side, row in alone:
        cell = of_cell({name: str(getattr(row, name)) for name in NAMES}, shown or ["attack"])
        found.setdefault((side, cell), []).append(row.metric)
    return found


def alone_table(alone: Sequence[tuple[str, Row]], a: str, b: str) -> list[Table]:
    """What has no partner: a line a cell, in a table that stands below the others; none where all have one."""
    rows = [
        TableRow(cell, [Cell(a if side == "a" else b), Cell(formats.count(len(metrics))), _few(metrics)])
        for (side, cell), metrics in grouped(alone).items()
    ]
    table = Table(
        name="without-a-partner",
        kind="summary",
        title="Without a partner",
        caption="What one side has and the other one does not: nothing is compared with it. The CSV has the numbers.",
        row_header="Cell",
        columns=[Column("Only in"), Column("Numbers"), Column("Metrics")],
        rows=rows,
    )
    return [table] if rows else []


def _few(metrics: Sequence[str]) -> Cell:
    """Names of metrics, not more than fit a line."""
    shown = ", ".join(metrics[:SHOWN])
    return Cell(f"{shown} and {len(metrics) - SHOWN} more" if len(metrics) > SHOWN else shown)
