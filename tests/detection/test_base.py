from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detection import threshold


def test_threshold_by_hand() -> None:
    scores = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])
    assert threshold(scores, 0.0) == 5.0
    assert threshold(scores, 0.2) == 4.0
    assert threshold(scores, 0.39) == 4.0
    assert threshold(scores, 0.4) == 3.0


def test_threshold_spends_a_rate_that_rounding_hides() -> None:
    scores = torch.arange(100.0)
    assert math.floor(0.29 * 100) == 28  # what plain arithmetic makes of it
    assert int((scores > threshold(scores, 0.29)).sum()) == 29


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=40),
    st.floats(0, 0.999),
)
def test_threshold_never_exceeds_the_rate_and_is_the_smallest(values: list[int], fpr: float) -> None:
    scores = torch.tensor(values, dtype=torch.float64)
    cut = threshold(scores, fpr)
    assert float((scores > cut).double().mean()) <= fpr + 1e-9
    lower = scores[scores < cut]
    if len(lower):
        assert float((scores > lower.max()).double().mean()) > fpr


@pytest.mark.parametrize("fpr", [-0.1, 1.0, 2.0])
def test_threshold_refuses_other_rates(fpr: float) -> None:
    with pytest.raises(ValueError, match="false-positive rate"):
        threshold(torch.zeros(3), fpr)


@pytest.mark.parametrize("scores", [torch.empty(0), torch.tensor([0.0, math.nan])])
def test_threshold_refuses_unusable_scores(scores: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="at least one clean score"):
        threshold(scores, 0.1)
