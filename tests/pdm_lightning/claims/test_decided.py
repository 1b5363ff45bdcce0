"""What decides nothing, what is a setting of its own, and how parts make a verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from pdm_lightning.claims.found import Of
from pdm_lightning.claims.intervals import (
    Estimate,
    decide,
    p_outside,
)
from pdm_lightning.claims.kinds import Order, Ratio, Within
from pdm_lightning.claims.verdicts import Part, combine, corrected
from pdm_lightning.report import Row
from tests.pdm_lightning.claims.parts import PDM, RCE, part, row


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


def test_a_white_box_distortion_needs_detection_to_be_breached() -> None:
    """The paper measures it under an AUC of .5 or less; beside each distortion stands its AUC."""
    where = {"attack": "cw_wb", "threat": "white_box"}

    def side(model: str, distortion: float, auc: float) -> list[Row]:
        return [
            row(model, distortion, distortion * 0.99, distortion * 1.01, metric="distortion", **where),
            row(model, auc, auc - 0.02, auc + 0.02, **where),
        ]

    order = Order(*(Of("distortion", model, "cw_wb", "white_box") for model in ("pdm", "rce")))
    found = part(order, *side("pdm", 0.2, 0.45), *side("rce", 0.1, 0.51))
    assert found.verdict == "reproduced"
    assert found.says.endswith(", AUC .450 [.430, .470] and .510 [.490, .530]")
    easy = part(order, *side("pdm", 0.2, 0.45), *side("rce", 0.1, 0.8))
    assert easy.verdict == "undecided"
    assert easy.says == "RCE .100 with detection not breached, AUC .800 [.780, .820], n = 100"


def test_rows_without_a_detector_are_no_setting() -> None:
    """Of a study of another detector alone, a walk's rows must not hide the rest."""
    rate = replace(PDM, metric="robust_accuracy")
    scored = row("pdm", 0.9, 0.8, 1.0, metric="robust_accuracy", detector="mahalanobis", bandwidth="")
    walk = row("pdm", 5.0, metric="gradient_growth", detector="", bandwidth="")
    for rows in ((scored, walk), (walk, scored)):
        assert part(Within(rate, least=0.5), *rows).verdict == "reproduced"


def test_another_bandwidth_rule_is_named() -> None:
    loo = row("pdm", 0.9, 0.8, 1.0, bandwidth="loo")
    assert part(Within(PDM, least=0.5), loo).says.endswith(", detector kde loo")
    both = part(Within(PDM, least=0.5), loo, row("pdm", 0.1, 0.0, 0.2))
    assert both.verdict == "not reproduced" and "detector" not in both.says


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


def test_one_of_many_refutes_by_holm_alone() -> None:
    """p = .02 refutes a claim of one comparison and not one of three; .01 one of three; and then .02 one of two."""
    held, near, far = (
        Part("", "reproduced", p=1.0),
        Part("", "not reproduced", "x", p=0.02),
        Part("", "not reproduced", p=0.01),
    )
    assert [part.verdict for part in corrected([near])] == ["not reproduced"]
    assert [part.verdict for part in corrected([near, held, held])] == [
        "undecided",
        "reproduced",
        "reproduced",
    ]
    assert [part.verdict for part in corrected([far, near, held])] == ["not reproduced"] * 2 + ["reproduced"]
    open_, gone = Part("", "undecided"), Part("", "not measured")
    assert corrected([near, open_, gone])[0].verdict == "not reproduced"  # nothing was tested there
    assert (
        corrected([near, held, held])[0].says
        == "x; against it alone, not among 3 comparisons (Holm: p = .06)"
    )


@pytest.mark.parametrize("freedom", [None, 1, 2])
def test_p_is_where_the_stretched_interval_reaches_the_region(freedom: int | None) -> None:
    """An upper arm of .1 that has to be stretched to .2: twice the quantile of its distribution."""
    spread = t(freedom) if freedom else norm
    found = Estimate(0.3, 0.0, 0.4, freedom)
    assert p_outside(found, 0.5, 1.0) == pytest.approx(2 * spread.sf(2 * spread.ppf(0.975)))
    assert p_outside(found, 0.4, 1.0) == pytest.approx(0.05)
    assert p_outside(found, 0.2, 1.0) == 1.0 and p_outside(Estimate(0.3), 0.5, 1.0) is None


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
        Order(PDM, RCE, ("mnist",)),
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
