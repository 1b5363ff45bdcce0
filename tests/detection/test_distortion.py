"""Distances of adversarial images, summarised."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from detection import Distortion, Interval, distortion


def test_by_hand() -> None:
    # sqrt(16) = 4: the distances are 1, 2, 3, 4 and 5 quarters
    result = distortion(torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0]), pixels=16)
    assert (result.q25, result.median, result.q75) == (0.5, 0.75, 1.0)
    assert (result.mean.value, result.mean.n) == (0.75, 5)


def test_a_uniform_change_has_its_own_size() -> None:
    change = torch.full((3, 3, 32, 32), 0.02, dtype=torch.float64)
    result = distortion(change.flatten(1).norm(dim=1), pixels=3 * 32 * 32)
    values = (result.mean.value, result.mean.low, result.mean.high, result.q25, result.median, result.q75)
    assert values == pytest.approx((0.02,) * 6, rel=1e-12)


def test_interval_equals_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).gamma(2.0, 0.1, size=60)
    result = distortion(torch.from_numpy(values), pixels=1, resamples=20_000, seed=1)
    expected = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=np.random.default_rng(2)
    ).confidence_interval
    error = values.std() / math.sqrt(60)  # of the mean; of a limit found by 20,000 resamples 2 % of it
    assert (result.mean.low, result.mean.high) == pytest.approx(
        (expected.low, expected.high), abs=0.1 * error
    )


def test_seeded() -> None:
    l2 = torch.rand(40, generator=torch.Generator().manual_seed(0))
    assert distortion(l2, 9, seed=1) == distortion(l2, 9, seed=1)
    assert distortion(l2, 9, seed=1).mean != distortion(l2, 9, seed=2).mean


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=30), st.integers(1, 4000), st.floats(0.1, 10))
def test_order_and_unit(values: list[float], pixels: int, factor: float) -> None:
    l2 = torch.tensor(values, dtype=torch.float64)
    result = distortion(l2, pixels, resamples=50)
    assert result.q25 <= result.median <= result.q75
    assert min(values) - 1e-9 <= result.mean.value * math.sqrt(pixels) <= max(values) + 1e-9
    if len(values) > 1:
        assert result.mean.low <= result.mean.high
    scaled = distortion(factor * l2, pixels, resamples=50)
    assert scaled.mean.value == pytest.approx(factor * result.mean.value, abs=1e-12)
    assert scaled.median == pytest.approx(factor * result.median, abs=1e-12)


def test_nothing_to_summarise() -> None:
    assert distortion(torch.zeros(0), 784) == Distortion(Interval(None, None, None, 0), None, None, None)


def test_a_single_distance_has_no_interval() -> None:
    assert distortion(torch.tensor([2.0]), 4) == Distortion(Interval(1.0, None, None, 1), 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("l2", "pixels"),
    [([-1.0], 4), ([math.nan], 4), ([math.inf], 4), ([1.0], 0), ([[1.0]], 4)],
)
def test_impossible_distances_are_refused(l2: list, pixels: int) -> None:
    with pytest.raises(ValueError, match="finite and not negative, and pixels >= 1"):
        distortion(torch.tensor(l2), pixels)
