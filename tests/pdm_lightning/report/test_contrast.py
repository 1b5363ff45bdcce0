"""Differences of two values: without a partner for each image, and over seeds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pdm_lightning.report.cells import Measure
from pdm_lightning.report.contrast import over_seeds, unpaired


def measure(value: float | None, low: float | None = None, high: float | None = None) -> Measure:
    return Measure("ok" if value is not None else "n/a", value, low, high)


def test_symmetric_intervals_are_the_normal_approximation() -> None:
    """Halves of 1.96 and 3.92 standard errors 1 and 2: a z test with the standard error sqrt(5)."""
    z = stats.norm.ppf(0.975)
    found = unpaired(measure(10.0, 10 - z, 10 + z), measure(6.0, 6 - 2 * z, 6 + 2 * z))
    assert (found.how, found.value) == ("unpaired", 4.0)
    assert found.low == pytest.approx(4 - z * math.sqrt(5)) and found.high == pytest.approx(
        4 + z * math.sqrt(5)
    )
    assert found.p == pytest.approx(2 * stats.norm.sf(4 / math.sqrt(5)))


def test_newcombe_s_own_example() -> None:
    """56/70 and 48/80 (Newcombe 1998, Table II, contrast a, method 10): .0524 to .3339."""
    wilson = [stats.binomtest(k, n).proportion_ci(method="wilson") for k, n in ((56, 70), (48, 80))]
    found = unpaired(*(measure(v, w.low, w.high) for v, w in zip((0.8, 0.6), wilson, strict=True)))
    assert found.low == pytest.approx(0.0524, abs=5e-5) and found.high == pytest.approx(0.3339, abs=5e-5)


around = st.tuples(st.floats(0, 1), st.floats(1e-3, 1), st.floats(1e-3, 1))


@given(around, around)
def test_p_and_interval_agree_and_sides_change_the_sign(
    one: tuple[float, ...], other: tuple[float, ...]
) -> None:
    a, b = (measure(value, value - down, value + up) for value, down, up in (one, other))
    found, turned = unpaired(a, b), unpaired(b, a)
    assert found.low is not None and found.high is not None and found.p is not None
    assert 0 <= found.p <= 1
    if abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert turned.p == pytest.approx(found.p)
    assert (turned.low, turned.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


@pytest.mark.parametrize(
    ("a", "b"), [(measure(0.5), measure(0.4, 0.3, 0.5)), (measure(0.5, 0.4, 0.6), measure(0.4))]
)
def test_without_an_interval_no_test(a: Measure, b: Measure) -> None:
    found = unpaired(a, b, "because")
    assert found.value == pytest.approx(0.1) and found.why == "because"
    assert (found.low, found.high, found.p) == (None, None, None)


def test_without_a_value_or_a_spread() -> None:
    assert unpaired(measure(None), measure(0.4, 0.3, 0.5)).value is None
    exact = unpaired(measure(1.0, 1.0, 1.0), measure(1.0, 1.0, 1.0))
    assert (exact.value, exact.low, exact.high, exact.p) == (0.0, 0.0, 0.0, None)


def test_over_seeds_is_student_s_paired_test() -> None:
    a, b = [0.91, 0.93, 0.88, 0.95], [0.90, 0.89, 0.86, 0.96]
    found = over_seeds([x - y for x, y in zip(a, b, strict=True)])
    test = stats.ttest_rel(a, b)
    limits = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == (pytest.approx(limits.low), pytest.approx(limits.high))
    assert (found.how, found.n) == ("seeds", 4) and found.value == pytest.approx(0.015)


def test_two_seeds_have_an_interval_and_no_p() -> None:
    found = over_seeds([0.1, 0.3])
    # sd = .1414, standard error .1, t(.975, 1) = 12.706
    assert found.value == pytest.approx(0.2) and found.p is None
    assert found.low == pytest.approx(0.2 - 1.2706, abs=1e-4) and found.high == pytest.approx(
        1.4706, abs=1e-4
    )


@pytest.mark.parametrize("differences", [[0.0, 0.0, 0.0], [0.1, 0.1], [0.1, 0.1, 0.1]])
def test_seeds_that_coincide_have_no_interval(differences: list[float]) -> None:
    found = over_seeds(differences)
    assert (found.low, found.high, found.p) == (None, None, None)
    assert found.value == pytest.approx(differences[0]) and found.n == len(differences)
