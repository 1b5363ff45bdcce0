"""Means, ratios of means and rank correlations, with their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, spearmanr

from detection import Interval, mean_interval, rank_correlation, ratio_interval

DRAWN = np.random.default_rng(0)
A, B = DRAWN.gamma(2.0, 1.0, 80), DRAWN.gamma(3.0, 1.0, 80)


def test_means_by_hand() -> None:
    found = mean_interval(torch.tensor([1.0, 2.0, 6.0]))
    assert (found.value, found.n) == (3.0, 3)
    assert mean_interval(np.array([2.5])) == Interval(2.5, None, None, 1)
    assert mean_interval(torch.zeros(0)) == Interval(None, None, None, 0)


def test_ratio_by_hand() -> None:
    found = ratio_interval(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 1.0]))
    # resamples of two images: the ratio is 2, 3 or 4
    assert (found.value, found.low, found.high, found.n) == (3.0, 2.0, 4.0, 2)
    assert ratio_interval(torch.ones(3), torch.zeros(3)) == Interval(None, None, None, 3)


def test_images_are_drawn_together() -> None:
    """A side in proportion to the other one leaves nothing to chance."""
    found = ratio_interval(3 * A, A)
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))


@pytest.mark.parametrize("which", ["mean", "ratio", "rank"])
def test_intervals_equal_scipys_percentile_bootstrap(which: str) -> None:
    ours, data, statistic = {
        "mean": (lambda: mean_interval(A, resamples=8000, seed=1), (A,), np.mean),
        "ratio": (
            lambda: ratio_interval(A, B, resamples=8000, seed=1),
            (A, B),
            lambda a, b: a.mean() / b.mean(),
        ),
        "rank": (
            lambda: rank_correlation(A, A + B, resamples=2000, seed=1),
            (A, A + B),
            lambda a, b: spearmanr(a, b).statistic,
        ),
    }[which]
    found, size = ours(), 2000 if which == "rank" else 8000
    assert found.value == pytest.approx(float(statistic(*data)), abs=1e-12)
    expected = bootstrap(
        data, statistic, n_resamples=size, method="percentile", paired=True, vectorized=False, rng=2
    )
    limits, error = expected.confidence_interval, float(expected.standard_error)
    # a limit that is found by 2,000 draws is uncertain by about a twentieth of the standard error
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high), abs=0.25 * error)


@given(st.lists(st.integers(-5, 5), min_size=3, max_size=30), st.randoms(use_true_random=False))
def test_rank_correlation_is_scipys_and_knows_no_scale(values: list[int], random: object) -> None:
    a = np.array(values, dtype=float)
    b = np.roll(a, 1) + np.arange(len(a)) * 0.5
    found = rank_correlation(a, b, resamples=20)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert found.value is None
        return
    assert found.value == pytest.approx(float(spearmanr(a, b).statistic), abs=1e-12)
    assert rank_correlation(np.exp(a), b, resamples=20) == found  # any rising function of a
    assert rank_correlation(-a, b, resamples=20).value == pytest.approx(-found.value)


def test_a_constant_has_no_rank() -> None:
    assert rank_correlation(np.ones(10), np.arange(10.0)) == Interval(None, None, None, 10)
    assert rank_correlation(np.arange(2.0), np.arange(2.0)).value is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_has_no_mean(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        mean_interval(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match="as many images"):
        ratio_interval(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="one number an image"):
        mean_interval(torch.ones(3, 2))
