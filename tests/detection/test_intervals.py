from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from detection import Interval, proportion


@given(st.integers(1, 10_000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_equals_scipys_wilson_interval(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    result = proportion(successes, n, level)
    assert result.value == successes / n and result.n == n
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= result.low <= result.value <= result.high <= 1


def test_nothing_tried_gives_no_value() -> None:
    assert proportion(0, 0) == Interval(None, None, None, 0)


@pytest.mark.parametrize(("successes", "n", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_impossible_counts_are_refused(successes: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match="successes <= n"):
        proportion(successes, n, level)
