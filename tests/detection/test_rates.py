"""Average precision and the false-positive rate at a true-positive rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from detection.rates import average_precision, fpr_at_tpr, paired_rate


def test_by_hand() -> None:
    clean, adv = np.array([0.1, 0.4, 0.6]), np.array([0.5, 0.7])
    # sorted: .7 (a), .6 (c), .5 (a): precisions 1 and 2/3
    assert average_precision(clean, adv) == pytest.approx((1 + 2 / 3) / 2)
    assert fpr_at_tpr(clean, adv, 1.0) == pytest.approx(1 / 3)
    assert fpr_at_tpr(clean, adv, 0.5) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_fpr_is_the_roc_curve_s(seed: int, tpr: float) -> None:
    rng = np.random.default_rng(seed)
    clean, adv = rng.normal(size=37).round(1), rng.normal(1, 1, size=20).round(1)
    fprs, tprs, _ = roc_curve(np.r_[np.zeros(37), np.ones(20)], np.r_[clean, adv], drop_intermediate=False)
    assert fpr_at_tpr(clean, adv, tpr) == pytest.approx(fprs[tprs >= tpr - 1e-9].min())


def test_interval_holds_the_value_and_few_pairs_say_nothing() -> None:
    rng = np.random.default_rng(0)
    clean, adv = rng.normal(size=200), rng.normal(1, 1, size=200)
    kept = torch.arange(200) % 2 == 0
    found = paired_rate(average_precision, clean, adv, kept, resamples=200)
    assert found.n == 100 and found.low < found.value < found.high
    assert found.value == average_precision(clean[::2], adv[::2])
    assert paired_rate(fpr_at_tpr, clean, adv, kept, min_n=101).value is None
    with pytest.raises(ValueError, match="one length"):
        paired_rate(fpr_at_tpr, clean, adv[:3], kept)
    with pytest.raises(ValueError, match="rate must lie"):
        fpr_at_tpr(clean, adv, 0.0)
