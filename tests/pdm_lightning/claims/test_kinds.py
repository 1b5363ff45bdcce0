"""Each kind of judgement against intervals computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from pdm_lightning.claims.intervals import (
    Estimate,
    decide,
    difference,
    exponential,
    from_edge,
    logarithm,
    mean,
)
from pdm_lightning.claims.kinds import Order, Ratio, Within
from pdm_lightning.claims.place import Of, Place
from pdm_lightning.claims.verdicts import Part, combine
from pdm_lightning.report import Row

PDM, RCE = Of("auc", "pdm", "bim_010"), Of("auc", "rce", "bim_010")
SCORED = {"threat": "gray_box", "detector": "kde", "bandwidth": "validation", "n": 100}


def row(model: str, value: float | None, low: float | None = None, high: float | None = None, **more) -> Row:
    base = {"data": "mnist", "model": "resnet56", "budget": "paper", "attack": "bim_010", "metric": "auc"}
    return Row(**{**base, **SCORED, "defense": model, "value": value, "ci_low": low, "ci_high": high, **more})


def part(kind, *rows: Row) -> Part:
    (found,) = kind.parts(Place(rows, {}))
    return found


def bounds(found: Part) -> tuple[float, float, float]:
    return found.numbers["value"], found.numbers["low"], found.numbers["high"]


def test_difference_by_hand() -> None:
    """Distances .1 below a and .1 above b: sqrt(.02) below; .05 above a and .05 below b: sqrt(.005) above."""
    found = difference(Estimate(0.8, 0.7, 0.85), Estimate(0.5, 0.45, 0.6))
    assert (found.value, found.low, found.high) == pytest.approx(
        (0.3, 0.3 - math.sqrt(0.02), 0.3 + math.sqrt(0.005))
    )
    assert difference(Estimate(0.8, 0.7, 0.85), Estimate(0.5)).known is False


def test_order() -> None:
    rows = row("pdm", 0.8, 0.7, 0.85), row("rce", 0.5, 0.45, 0.6)
    found = part(Order(PDM, RCE), *rows)
    assert bounds(found) == pytest.approx((0.3, 0.3 - math.sqrt(0.02), 0.3 + math.sqrt(0.005)))
    assert found.verdict == "reproduced" and part(Order(RCE, PDM), *rows).verdict == "not reproduced"
    assert found.says == ".800 against .500, difference +.300 [+.159, +.371], n = 100"
    near = part(Order(PDM, RCE), row("pdm", 0.8, 0.7, 0.85), row("rce", 0.7, 0.65, 0.8))
    assert near.verdict == "undecided"  # .1 - sqrt(.02) < 0


def test_equals_are_no_order_but_hold_with_slack() -> None:
    rows = row("pdm", 0.9, 0.9, 0.9), row("rce", 0.9, 0.9, 0.9)
    assert part(Order(PDM, RCE), *rows).verdict == "undecided"
    assert part(Order(PDM, RCE, 0.005), *rows).verdict == "reproduced"
    behind = row("pdm", 0.8, 0.799, 0.801), row("rce", 0.9, 0.9, 0.9)
    assert part(Order(PDM, RCE, 0.005), *behind).verdict == "not reproduced"


def test_seeds_are_paired() -> None:
    """Differences .1, .2, .3: mean .2, deviation .1, t interval of two degrees of freedom; the rows' own are unused."""
    pairs = [(0.6, 0.5), (0.8, 0.6), (0.7, 0.4)]
    rows = [row("pdm", a, 0.0, 1.0, seed=seed) for seed, (a, _) in enumerate(pairs)]
    rows += [row("rce", b, 0.0, 1.0, seed=seed) for seed, (_, b) in enumerate(pairs)]
    half = t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert bounds(part(Order(PDM, RCE), *rows)) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    # a third seed of one model alone does not take part in the difference
    lone = part(Order(PDM, RCE), *rows, row("pdm", 0.1, seed=9))
    assert bounds(lone) == pytest.approx((0.2, 0.2 - half, 0.2 + half))


def test_seeds_without_spread_say_nothing_alone() -> None:
    assert mean([0.1, 0.1]).known is False
    rows = [row(model, 0.9, 0.8, 1.0, seed=seed) for model in ("pdm", "rce") for seed in (0, 1)]
    # the t intervals of both are without width, too: a tie
    assert part(Order(PDM, RCE), *rows).verdict == "undecided"


def test_ratio_by_hand() -> None:
    """Logarithms .3 and .4 away from their values: sqrt(.3^2 + .4^2) = .5 on either side."""
    a = Estimate(2.0, 2 * math.exp(-0.3), 2 * math.exp(0.4))
    b = Estimate(1.0, math.exp(-0.3), math.exp(0.4))
    found = exponential(difference(logarithm(a), logarithm(b)))
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2 * math.exp(-0.5), 2 * math.exp(0.5)))
    rows = [row(model, e.value, e.low, e.high, metric="bound") for model, e in (("pdm", a), ("rce", b))]
    over, under = replace(PDM, metric="bound"), replace(RCE, metric="bound")
    assert part(Ratio(over, under, 1.2), *rows).verdict == "reproduced"
    assert part(Ratio(over, under, 1.3), *rows).verdict == "undecided"
    assert part(Ratio(over, under, 3.4), *rows).verdict == "not reproduced"
    assert part(Ratio(over, under, 1.2, 3.0), *rows).verdict == "undecided"
    assert part(Ratio(over, under, 1.2, 3.3), *rows).verdict == "reproduced"


def test_ratio_of_seeds() -> None:
    rows = [row("pdm", value, seed=seed, metric="bound") for seed, value in enumerate((2.0, 8.0))]
    rows += [row("rce", 1.0, seed=seed, metric="bound") for seed in (0, 1)]
    value, low, high = bounds(part(Ratio(replace(PDM, metric="bound"), replace(RCE, metric="bound")), *rows))
    half = t.ppf(0.975, 1) * math.log(2)  # deviation sqrt(2) log 2, over sqrt(2)
    assert (math.log(value), math.log(low), math.log(high)) == pytest.approx(
        (math.log(4), math.log(4) - half, math.log(4) + half)
    )


def test_ratio_of_what_is_not_positive() -> None:
    rows = row("pdm", 0.5, 0.4, 0.6), row("rce", 0.0, 0.0, 0.1)
    assert part(Ratio(PDM, RCE), *rows).verdict == "undecided"
    assert logarithm(Estimate(1.0, -1.0, 2.0)).low == -math.inf


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.4, 0.49, "reproduced"),
        (0.4, 0.5, "reproduced"),
        (0.4, 0.6, "undecided"),
        (0.51, 0.6, "not reproduced"),
    ],
)
def test_at_most(low: float, high: float, verdict: str) -> None:
    found = part(Within(PDM, most=0.5), row("pdm", (low + high) / 2, low, high))
    assert found.verdict == verdict and ", asked: .5 or less, n = 100" in found.says


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.97, 1.0, "reproduced"), (0.96, 1.0, "undecided"), (0.9, 0.96, "not reproduced")],
)
def test_near_what_is_printed(low: float, high: float, verdict: str) -> None:
    found = part(Within(PDM, 0.97, 1.01, printed=0.99), row("pdm", (low + high) / 2, low, high))
    assert (
        found.verdict == verdict
        and "paper .99, asked: .97 to 1," in found.says
        and found.numbers["paper"] == 0.99
    )


def test_t_interval_is_cut_at_what_an_auc_can_be() -> None:
    rows = [row("pdm", value, seed=seed) for seed, value in enumerate((0.98, 1.0))]
    assert part(Within(PDM, 0.86, 1.0), *rows).numbers["high"] == 1.0


def test_an_auc_of_one_is_no_surer_than_its_n() -> None:
    """A bootstrap of 100 perfect pairs has no width; the exact bound for 100 of 100 is Clopper and Pearson's."""
    exact = binomtest(100, 100).proportion_ci(0.95, "exact").low
    assert 1 - from_edge(100) == pytest.approx(exact)
    found = part(Within(PDM, 0.995), row("pdm", 1.0, 1.0, 1.0))
    assert found.numbers["low"] == pytest.approx(exact) and found.verdict == "undecided"
    assert part(Within(PDM, 0.995), row("pdm", 1.0, 1.0, 1.0, n=1000)).verdict == "reproduced"
    assert part(Within(PDM, most=0.5), row("pdm", 0.0, 0.0, 0.0)).numbers["high"] == pytest.approx(1 - exact)


def test_no_interval_no_verdict() -> None:
    found = part(Order(PDM, RCE), row("pdm", 0.9), row("rce", 0.1))
    assert found.verdict == "undecided" and found.says.endswith(
        "no interval of one training: more seeds give one"
    )


def test_gaps() -> None:
    few = row("pdm", None, status="n/a", n=28)
    assert part(Order(PDM, RCE), few, row("rce", 0.5, 0.4, 0.6)).says == "PDM n/a, n = 28"
    assert part(Order(PDM, RCE), few, row("rce", 0.5, 0.4, 0.6)).verdict == "undecided"
    assert part(Order(PDM, RCE), few).verdict == "not measured"
    assert part(Within(PDM, most=1.0), row("pdm", None, status="failed")).says == "failed"


def test_a_mean_over_few_successes_is_censored() -> None:
    of = Of("distortion", "pdm", "cw_wb", "white_box")
    where = {"attack": "cw_wb", "threat": "white_box"}
    rows = (
        row("pdm", 0.2, 0.19, 0.21, metric="distortion", **where),
        row("pdm", 0.98, metric="success_rate", **where),
    )
    found = part(Within(of, least=0.1), *rows)
    assert found.verdict == "undecided" and found.says.startswith("censored, .200 over the 98.0 % that fell")
    assert part(Within(of, least=0.1), rows[0], replace(rows[1], value=0.99)).verdict == "reproduced"


def test_one_detector_and_bandwidth_for_all() -> None:
    """The paper's detector at its rule; a scaled bandwidth, another layer or another detector is none of it."""
    others = {
        "kde[bandwidth_scale=2.0]": "validation x2",
        "kde[layer=logits]": "validation",
        "msp": "",
        "kde[bandwidth=loo]": "loo",
    }
    rows = [row("pdm", 0.1, 0.1, 0.1, detector=name, bandwidth=rule) for name, rule in others.items()]
    assert part(Within(PDM, least=0.5), *rows, row("pdm", 0.9, 0.8, 1.0)).verdict == "reproduced"
    assert part(Within(PDM, least=0.5), *rows[:3]).verdict == "not measured"
    assert part(Within(PDM, least=0.5), *rows).verdict == "not reproduced"


def test_another_reading_of_pdm_stands_in_only_where_pdm_is_not() -> None:
    printed = row("pdm_printed", 0.1, 0.1, 0.2)
    assert part(Within(PDM, least=0.5), printed).verdict == "not reproduced"
    assert part(Within(PDM, least=0.5), printed, row("pdm", 0.9, 0.8, 1.0)).verdict == "reproduced"


def test_combine() -> None:
    parts = {
        verdict: Part("", verdict)
        for verdict in ("reproduced", "not reproduced", "undecided", "not measured")
    }
    assert combine([parts["reproduced"], parts["reproduced"]]) == "reproduced"
    assert combine(list(parts.values())) == "not reproduced"
    assert combine([parts["reproduced"], parts["undecided"]]) == "undecided"
    assert combine([parts["reproduced"], parts["not measured"]]) == "undecided"
    assert combine([parts["not measured"]] * 2) == "not measured"


interval = st.tuples(*[st.floats(0.001, 0.999)] * 3).map(sorted).map(lambda x: Estimate(x[1], x[0], x[2]))
OPPOSITE = {"reproduced": "not reproduced", "not reproduced": "reproduced", "undecided": "undecided"}


def rows_of(a: Estimate, b: Estimate) -> list[Row]:
    return [row("pdm", a.value, a.low, a.high), row("rce", b.value, b.low, b.high)]


@given(interval, interval)
def test_swapping_the_sides_turns_the_verdict(a: Estimate, b: Estimate) -> None:
    forth, back = part(Order(PDM, RCE), *rows_of(a, b)), part(Order(RCE, PDM), *rows_of(a, b))
    assert back.verdict == OPPOSITE[forth.verdict]


def shrunk(e: Estimate, share: float) -> Estimate:
    assert e.low is not None and e.high is not None
    return Estimate(e.value, e.value - share * (e.value - e.low), e.value + share * (e.high - e.value))


@given(interval, interval, st.floats(0, 1), st.floats(0.01, 3), st.floats(0.5, 2))
def test_shorter_intervals_never_turn_a_verdict(
    a: Estimate, b: Estimate, share: float, least: float, width: float
) -> None:
    kinds = (
        Order(PDM, RCE),
        Order(PDM, RCE, 0.005),
        Ratio(PDM, RCE, least, least + width),
        Within(PDM, least, least + width),
    )
    for kind in kinds:
        before = part(kind, *rows_of(a, b)).verdict
        after = part(kind, *rows_of(shrunk(a, share), shrunk(b, share))).verdict
        # a decided one stays, up to rounding at the edge of its region
        assert before == "undecided" or after in (before, "undecided")


@given(interval, st.floats(0, 1), st.floats(0, 1))
def test_decide_is_set_inclusion(e: Estimate, x: float, y: float) -> None:
    assert e.low is not None and e.high is not None
    least, most = sorted((x, y))
    verdict = decide(e, least, most)
    assert (verdict == "reproduced") == (least <= e.low and e.high <= most)
    assert (verdict == "not reproduced") == (e.high < least or e.low > most)
