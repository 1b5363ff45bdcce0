"""What a claim speaks of, what a study has of it, and how two of these compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pdm_lightning.claims.intervals import (
    Estimate,
    difference,
    exponential,
    from_edge,
    logarithm,
    mean,
    wider,
)
from pdm_lightning.report import formats
from pdm_lightning.report.cells import CLEAN, Measure, own_interval
from pdm_lightning.report.rows import Row


@dataclass(frozen=True)
class Of:
    """What a claim speaks of: a metric of one of the paper's models.

    Attributes
    ----------
    metric : str
        As in `pdm_lightning.report.results.Row`; ``a/b`` is one metric over another of the same model.
    model : str
        The paper's name: ``base``, ``rce``, ``rvl``, ``siamese``, ``siamese_rvl`` or ``pdm``.
    attack, threat : str
        As in ``conf/``; without an attack, what is measured on clean images.
    """

    metric: str
    model: str
    attack: str = CLEAN
    threat: str = "gray_box"


@dataclass(frozen=True)
class Found:
    """What the study has of it.

    Attributes
    ----------
    estimate : Estimate or None
        None for a gap.
    images : Estimate or None
        With the interval of the images alone, where `estimate` has that of several seeds in it.
    gap : str
        What is wrong, where there is no estimate.
    missing : bool
        Whether it was not measured at all.
    n : tuple of int or None
        Smallest and largest over the seeds.
    seeds : dict of int to float
        Values by seed.
    collapsed : tuple of int
        Seeds among them whose training collapsed.
    marks : dict of str to str
        What to know beside the number, by what it is: ``{"seeds": "2 of 3"}``.
    """

    estimate: Estimate | None = None
    images: Estimate | None = None
    gap: str = ""
    missing: bool = False
    n: tuple[int, int] | None = None
    seeds: dict[int, float] = field(default_factory=dict)
    collapsed: tuple[int, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)


def estimates(metric: str, measured: Measure, rows: Sequence[Row]) -> tuple[Estimate, Estimate]:
    """A measure with its interval, and with that of the images alone, within what the metric can be.

    No AUC is surer than a perfect one of as many pairs: see `from_edge`. A perfect one would else get a worse verdict
    than one a little below, whose bootstrap has little width.
    """
    value = measured.value
    assert value is not None
    images = _bounded(metric, Estimate(value, *own_interval(rows)), measured)
    freedom = measured.seeds_ok - 1 if measured.seeds_ok > 1 else None
    return wider(
        _bounded(metric, Estimate(value, measured.low, measured.high, freedom), measured), images
    ), images


def _bounded(metric: str, found: Estimate, measured: Measure) -> Estimate:
    if found.low is None or found.high is None:
        return found
    low, high = formats.within(metric, found.low), formats.within(metric, found.high)
    if metric.startswith("auc") and measured.n and measured.n[0]:
        away = from_edge(measured.n[0])
        low, high = min(low, 1 - away), max(high, away)
    return Estimate(found.value, low, high, found.freedom)


def compared(a: Found, b: Found, *, logarithms: bool = False) -> Estimate:
    """Their difference, or that of their logarithms.

    Of several seeds paired by seed, and no surer than their images make it; independent, by `intervals.difference`, of
    a single one.
    """
    assert a.estimate is not None and b.estimate is not None
    pairs = [(a.seeds[seed], b.seeds[seed]) for seed in sorted(a.seeds.keys() & b.seeds.keys())]
    if len(pairs) < 2 or (logarithms and min(min(pair) for pair in pairs) <= 0):
        return _apart(a.estimate, b.estimate, logarithms=logarithms)
    seeds = mean([math.log(x) - math.log(y) if logarithms else x - y for x, y in pairs])
    images = _apart(a.images or a.estimate, b.images or b.estimate, logarithms=logarithms)
    return wider(seeds, images)


def _apart(a: Estimate, b: Estimate, *, logarithms: bool) -> Estimate:
    return difference(logarithm(a), logarithm(b)) if logarithms else difference(a, b)


def quotient(top: Found, bottom: Found) -> Found:
    """One found measure over another of the same model."""
    gap = next((one for one in (top, bottom) if one.estimate is None), None)
    if gap is not None:
        return gap
    assert top.estimate is not None and bottom.estimate is not None
    if min(top.estimate.value, bottom.estimate.value) <= 0:
        return Found(gap="no ratio of what is not positive", n=top.n)
    images = _apart(top.images or top.estimate, bottom.images or bottom.estimate, logarithms=True)
    return Found(
        exponential(compared(top, bottom, logarithms=True)),
        exponential(images),
        n=top.n,
        seeds={seed: top.seeds[seed] / bottom.seeds[seed] for seed in top.seeds.keys() & bottom.seeds.keys()},
        collapsed=tuple({*top.collapsed, *bottom.collapsed}),
        marks={**top.marks, **bottom.marks},
    )
