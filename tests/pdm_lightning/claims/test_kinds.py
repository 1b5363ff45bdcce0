"""Each kind of judgement against intervals computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from pdm_lightning.claims.found import Of
from pdm_lightning.claims.intervals import (
    Estimate,
    difference,
    exponential,
    from_edge,
    logarithm,
    mean,
)
from pdm_lightning.claims.kinds import Layers, Never, Order, Ratio, SameOrder, Within
from pdm_lightning.claims.place import Place
from pdm_lightning.claims.verdicts import Part
from pdm_lightning.report import Row
from tests.pdm_lightning.claims.parts import PDM, RCE, bounds, part, row


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
    rows = row("pdm", 0.9, 0.9, 0.9, n=10_000), row("rce", 0.9, 0.9, 0.9, n=10_000)
    assert part(Order(PDM, RCE, ("mnist",)), *rows).verdict == "reproduced"
    assert part(Order(PDM, RCE, ("cifar10",)), *rows).verdict == "undecided"
    behind = row("pdm", 0.8, 0.799, 0.801), row("rce", 0.9, 0.9, 0.9)
    assert part(Order(PDM, RCE, ("mnist",)), *behind).verdict == "not reproduced"


def seeds_of(model: str, values, half: float = 0.0, **more) -> list[Row]:
    return [row(model, v, v - half, v + half, seed=seed, **more) for seed, v in enumerate(values)]


def test_seeds_are_paired() -> None:
    """Differences .1, .2, .3: mean .2, deviation .1, t interval of two degrees of freedom, wider than the images'."""
    rows = seeds_of("pdm", (0.6, 0.8, 0.7), 0.01) + seeds_of("rce", (0.5, 0.6, 0.4), 0.01)
    half = t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert bounds(part(Order(PDM, RCE), *rows)) == pytest.approx((0.2, 0.2 - half, 0.2 + half))


def test_seeds_decide_no_more_than_their_images_do() -> None:
    """Differences .1, .101 have a t interval of .1005 -+ .0064; images that leave +- .15 in each value, -+ .212."""
    wide = seeds_of("pdm", (0.6, 0.601), 0.15) + seeds_of("rce", (0.5, 0.5), 0.15)
    assert bounds(part(Order(PDM, RCE), *wide)) == pytest.approx(
        (0.1005, 0.1005 - 0.15 * 2**0.5, 0.1005 + 0.15 * 2**0.5)
    )
    assert part(Within(PDM, least=0.55), *wide[:2]).verdict == "undecided"
    assert (
        part(Order(PDM, RCE), *seeds_of("pdm", (0.6, 0.601)), *seeds_of("rce", (0.5, 0.5))).verdict
        == "reproduced"
    )


def test_seeds_without_spread_have_the_interval_of_their_images() -> None:
    assert mean([0.1, 0.1]).known is False
    alike = seeds_of("pdm", (0.9, 0.9), 0.1) + seeds_of("rce", (0.9, 0.9), 0.1)
    assert bounds(part(Within(PDM), *alike[:2])) == pytest.approx((0.9, 0.8, 1.0))
    assert bounds(part(Order(PDM, RCE), *alike)) == pytest.approx((0.0, -0.1 * 2**0.5, 0.1 * 2**0.5))
    bare = [row("pdm", 5.0, seed=seed, metric="eta") for seed in (0, 1)]
    found = part(Within(replace(PDM, metric="eta"), least=1), *bare)
    assert found.verdict == "undecided" and found.says.endswith("no interval of seeds that do not differ")


def test_sides_of_different_seeds_decide_nothing_and_missing_seeds_are_told() -> None:
    rows = seeds_of("pdm", (0.6, 0.62, 0.61), 0.01) + seeds_of("rce", (0.3,), 0.01)
    found = part(Order(PDM, RCE), *rows)
    assert found.verdict == "undecided" and found.says.endswith("of different seeds: 0, 1 and 2 against 0")
    few = part(Within(RCE, most=0.5), *rows)
    assert few.verdict == "reproduced" and few.says.endswith(", seeds 1 of 3")


def test_a_collapsed_training_decides_nothing() -> None:
    """Marked by its own row, or by a note on what was measured of it."""
    rows = [row("pdm", 0.9, 0.89, 0.91), row("rce", 0.5, 0.49, 0.51)]
    told = Row(data="mnist", model="resnet56", budget="paper", defense="rce", metric="collapsed", value=1.0)
    for found in (
        part(Order(PDM, RCE), *rows, told),
        part(Order(PDM, RCE), rows[0], replace(rows[1], note="capped: 9; collapsed")),
    ):
        assert found.verdict == "undecided" and found.says.endswith("rests on a collapsed training (seed 0)")
    assert part(Order(PDM, RCE), *rows, replace(told, value=0.0)).verdict == "reproduced"
    assert part(Order(PDM, RCE), *rows, replace(told, seed=1)).verdict == "reproduced"


def test_capped_rows_are_marked() -> None:
    found = part(Within(PDM, least=0.5), row("pdm", 0.9, 0.8, 1.0, note="capped: 9 of 10 test images"))
    assert found.verdict == "reproduced" and found.says.endswith(", n = 100, capped")


def test_never() -> None:
    """One of 198 refutes a bound, where its Wilson interval leaves room for a tenth of that; none is none in 10,000."""
    of = Of("below_bound", "pdm", "min_norm_l2")
    scored = {"attack": "min_norm_l2", "metric": "below_bound", "detector": "", "bandwidth": ""}
    one = part(Never(of), row("pdm", 1 / 198, 0.0009, 0.028, **scored))
    assert (one.verdict, one.p) == ("not reproduced", 0.0)
    assert part(Never(of), row("pdm", 0.0, 0.0, 0.019, **scored)).verdict == "undecided"
    assert part(Never(of), row("pdm", 0.0, 0.0, 0.0004, **scored)).verdict == "reproduced"


BOUNDS = tuple(Of("bound", model) for model in ("base", "rce", "pdm"))
NEEDS = tuple(Of("l2_mean", model, "min_norm_l2") for model in ("base", "rce", "pdm"))


def ordered(bound: dict[str, float], needed: dict[str, float]) -> list[Part]:
    """Bounds within .01, distances within .1."""
    rows = [row(m, v, v - 0.01, v + 0.01, metric="bound", attack="none") for m, v in bound.items()]
    rows += [row(m, v, v - 0.1, v + 0.1, metric="l2_mean", attack="min_norm_l2") for m, v in needed.items()]
    return SameOrder(BOUNDS, NEEDS).parts(Place(rows, {}))


def test_same_order() -> None:
    bound = {"ce": 0.1, "rce": 0.2, "pdm": 0.3}
    with_it = ordered(bound, {"ce": 1.0, "rce": 2.0, "pdm": 3.0})
    assert [part.verdict for part in with_it] == ["reproduced"] * 3
    against = ordered(bound, {"ce": 1.0, "rce": 3.0, "pdm": 2.0})
    assert [part.verdict for part in against] == ["reproduced", "reproduced", "not reproduced"]
    assert against[2].what.startswith("PDM - RCE") and "asked: above, as in bound" in against[2].says
    # no surer than that the bounds differ: by .0142 -+ .01 * sqrt(2)
    unsure = ordered({**bound, "pdm": 0.2142}, {"ce": 1.0, "rce": 3.0, "pdm": 2.0})[2]
    assert unsure.verdict == "not reproduced" and unsure.p == pytest.approx(0.05, abs=0.005)
    near = ordered({**bound, "rce": 0.101}, {"ce": 3.0, "rce": 1.0, "pdm": 4.0})
    assert [part.verdict for part in near] == ["reproduced"] * 2  # the bounds of two do not differ
    (none,) = ordered(dict.fromkeys(bound, 0.1), {"ce": 1.0, "rce": 2.0, "pdm": 3.0})
    assert none.verdict == "undecided" and none.says == "no two models clearly differ in bound"
    assert {part.verdict for part in ordered({"ce": 0.1}, {})} == {"not measured"}


def test_layers_are_those_of_the_study() -> None:
    rows = [
        row(model, value, value * 0.99, value * 1.01, metric=f"gradient_train:{layer}", attack="none")
        for layer in ("stem", "layer1")
        for model, value in (("ce", 12.0), ("rce", 1.0))
    ]
    kind = Layers(Of("gradient_train", "base"), Of("gradient_train", "rce"), 5)
    found = kind.parts(Place(rows, {}))
    assert [(part.what, part.verdict) for part in found] == [
        ("baseline / RCE, gradient train, stem", "reproduced"),
        ("baseline / RCE, gradient train, layer1", "reproduced"),
    ]
    assert [part.verdict for part in kind.parts(Place([], {}))] == ["not measured"]


def test_a_measure_over_another_has_no_unit() -> None:
    """Both within a factor of exp(.3) and exp(.4): exp(.5) of their quotient, at any scale."""

    def rows(scale: float) -> list[Row]:
        sizes = {"cluster_variance": (2.0, 0.3), "cluster_distance": (4.0, 0.4)}
        return [
            row(
                "rvl",
                v * scale,
                v * scale * math.exp(-w),
                v * scale * math.exp(w),
                metric=name,
                attack="none",
            )
            for name, (v, w) in sizes.items()
        ]

    for scale in (1, 10):
        found = part(Within(Of("cluster_variance/cluster_distance", "rvl")), *rows(scale))
        assert bounds(found) == pytest.approx((0.5, 0.5 * math.exp(-0.5), 0.5 * math.exp(0.5)))
    assert (
        part(Within(Of("cluster_variance/cluster_distance", "rvl")), *rows(1)[:1]).verdict == "not measured"
    )


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
    found = part(Within(PDM, 0.97, 1.01, printed=0.99), row("pdm", (low + high) / 2, low, high, n=10_000))
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


@given(st.floats(0.9, 1), st.floats(0.9, 1))
def test_a_higher_auc_never_gets_a_lower_limit(one: float, other: float) -> None:
    """Of 100 pairs whose bootstrap narrows towards 1: a perfect AUC is judged no worse than one of .9998."""
    low, high = (
        part(Within(PDM), row("pdm", value, 1 - 3 * (1 - value), 1.0)) for value in sorted((one, other))
    )
    assert low.numbers["low"] <= high.numbers["low"] <= 0.025 ** (1 / 100) + 1e-12


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
