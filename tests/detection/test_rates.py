"""Average precision, the false-positive rate at a true-positive rate, and accuracies at a threshold."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_curve

from detection import Interval, bootstrap_auc, paired_auc, robust_accuracy
from detection.rates import (
    average_precision,
    bootstrap_average_precision,
    bootstrap_fpr_at_tpr,
    detection_accuracy,
    fpr_at_tpr,
    joint_accuracy,
    paired_rate,
)

BOTH = [(average_precision, bootstrap_average_precision), (fpr_at_tpr, bootstrap_fpr_at_tpr)]


def test_by_hand() -> None:
    clean, adv = np.array([0.1, 0.4, 0.6]), np.array([0.5, 0.7])
    # sorted: .7 (a), .6 (c), .5 (a): precisions 1 and 2/3
    assert average_precision(clean, adv) == pytest.approx((1 + 2 / 3) / 2)
    assert fpr_at_tpr(clean, adv, 1.0) == pytest.approx(1 / 3)
    assert fpr_at_tpr(clean, adv, 0.5) == 0
    # ties stand together: at 1 all four are flagged
    assert average_precision(np.ones(2), np.ones(2)) == 0.5
    assert fpr_at_tpr(np.ones(2), np.ones(2)) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_fpr_is_the_roc_curve_s(seed: int, tpr: float) -> None:
    rng = np.random.default_rng(seed)
    clean, adv = rng.normal(size=37).round(1), rng.normal(1, 1, size=20).round(1)
    fprs, tprs, _ = roc_curve(np.r_[np.zeros(37), np.ones(20)], np.r_[clean, adv], drop_intermediate=False)
    assert fpr_at_tpr(clean, adv, tpr) == pytest.approx(fprs[tprs >= tpr - 1e-9].min())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_average_precision_is_scikit_learn_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean, adv = rng.integers(0, 6, 30).astype(float), rng.integers(2, 9, 17).astype(float)
    truth = np.r_[np.zeros(30), np.ones(17)]
    expected = average_precision_score(truth, np.r_[clean, adv])
    assert average_precision(torch.from_numpy(clean), torch.from_numpy(adv)) == pytest.approx(expected)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("plain", "bootstrap"), BOTH)
def test_bootstrap_equals_a_plain_loop(plain: Callable, bootstrap: Callable, paired: bool) -> None:
    rng = np.random.default_rng(2)
    clean, adv = rng.integers(0, 9, 60).astype(float), rng.integers(3, 12, 60).astype(float)  # with ties
    draw = np.random.default_rng(7)
    rows = draw.integers(0, 60, (200, 60))
    columns = rows if paired else draw.integers(0, 60, (200, 60))
    values = [plain(clean[r], adv[c]) for r, c in zip(rows, columns, strict=True)]
    result = bootstrap(clean, adv, paired=paired, resamples=200, seed=7)
    expected = (plain(clean, adv), *np.quantile(values, [0.025, 0.975]))
    assert (result.value, result.low, result.high) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("plain", "bootstrap"), BOTH)
def test_unequal_sides_and_blocks(
    plain: Callable, bootstrap: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    clean, adv = rng.normal(size=300), rng.normal(1, 1, size=120)
    monkeypatch.setattr("detection.resampling._BLOCK", 3000)  # ten resamples a block
    first = bootstrap(clean, adv, seed=1)
    assert first == bootstrap(clean, adv, seed=1) != bootstrap(clean, adv, seed=2)
    assert first.n == 120 and first.low < first.value == plain(clean, adv) < first.high


def test_a_thousand_resamples_of_a_thousand_pairs_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    clean, adv = rng.normal(size=1000), rng.normal(1, 1, 1000)
    start = time.process_time()
    bootstrap_average_precision(clean, adv, paired=True)
    bootstrap_fpr_at_tpr(clean, adv, paired=True)
    assert time.process_time() - start < 2  # twice that: machines are shared


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    st.sampled_from(BOTH),
)
def test_bounds(clean: list[int], adv: list[int], both: tuple[Callable, Callable]) -> None:
    plain, bootstrap = both
    left, right = np.array(clean, dtype=float), np.array(adv, dtype=float)
    found = bootstrap(left, right, resamples=50)
    assert 0 <= found.low <= found.high <= 1 + 1e-12
    assert found.value == plain(left, right) and 0 <= found.value <= 1
    # only the order counts
    assert plain(7 * left - 1000, 7 * right - 1000) == found.value


def test_interval_holds_the_value_and_few_pairs_say_nothing() -> None:
    rng = np.random.default_rng(0)
    clean, adv = rng.normal(size=200), rng.normal(1, 1, size=200)
    kept = torch.arange(200) % 2 == 0
    found = paired_rate(bootstrap_average_precision, clean, adv, kept, resamples=200)
    assert found.n == 100 and found.low < found.value < found.high
    assert found.value == average_precision(clean[::2], adv[::2])
    assert paired_rate(bootstrap_fpr_at_tpr, clean, adv, kept, min_n=101) == Interval(None, None, None, 100)
    assert paired_rate(bootstrap_auc, clean, adv, kept) == paired_auc(clean, adv, kept, kept)
    with pytest.raises(ValueError, match="one length"):
        paired_rate(bootstrap_fpr_at_tpr, clean, adv[:3], kept)
    with pytest.raises(ValueError, match="rate must lie"):
        fpr_at_tpr(clean, adv, 0.0)
    with pytest.raises(ValueError, match="one length, got 200 and 3"):
        bootstrap_average_precision(clean, adv[:3], paired=True)


# ---- accuracies

FOOLED = torch.tensor([True, True, True, False])
SCORES = torch.tensor([1.0, 2.0, 3.0, 9.0])
CLEAN = torch.tensor([0.0, 3.0, 1.0, 2.0])


def test_accuracies_by_hand() -> None:
    # at 2: clean 0, 1 and 2 unflagged, adversarial 3 and 9 flagged
    found = detection_accuracy(CLEAN, SCORES, 2.0)
    assert (found.value, found.n) == (5 / 8, 4)
    # adversarial right: the third (flagged) and the fourth (not fooled); of ten images tried
    assert joint_accuracy(CLEAN, FOOLED, SCORES, 2.0, 10).value == 5 / 20
    # at 9 nothing is flagged: the fourth adversarial image is right all the same
    assert joint_accuracy(CLEAN, FOOLED, SCORES, 9.0, 4).value == 5 / 8
    assert detection_accuracy(CLEAN, SCORES, 9.0).value == 1 / 2


def test_without_a_threshold_there_is_no_accuracy() -> None:
    assert detection_accuracy(CLEAN, SCORES, None) == Interval(None, None, None, 4)
    assert joint_accuracy(CLEAN, FOOLED, SCORES, None, 9) == Interval(None, None, None, 9)
    assert detection_accuracy(CLEAN[:0], SCORES[:0], 1.0) == Interval(None, None, None, 0)


def test_wrong_accuracies_are_refused() -> None:
    with pytest.raises(ValueError, match="4, 4 and 3 for 4 images"):
        joint_accuracy(CLEAN, FOOLED, SCORES, 1.0, 3)
    with pytest.raises(ValueError, match="got 3, 4"):
        detection_accuracy(CLEAN[:3], SCORES, 1.0)
    with pytest.raises(ValueError, match="1 of 4 scores are NaN"):
        detection_accuracy(torch.tensor([0.0, float("nan"), 1.0, 2.0]), SCORES, 1.0)
    with pytest.raises(ValueError, match="bool"):
        joint_accuracy(CLEAN, FOOLED.long(), SCORES, 1.0, 4)


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(-3, 3)), min_size=1, max_size=30),
    st.integers(-4, 4),
    st.integers(0, 5),
)
def test_joint_accuracy_counts_versions_and_lies_beside_robust_accuracy(
    rows: list[tuple[int, bool, int]], cut: int, missed: int
) -> None:
    clean, fooled, scores = (torch.tensor(column) for column in zip(*rows, strict=True))
    clean, scores, n = clean.double(), scores.double(), len(rows) + missed
    found = joint_accuracy(clean, fooled, scores, float(cut), n)
    right = sum((c <= cut) + (not f or s > cut) for c, f, s in rows)
    assert found.value == pytest.approx(right / (2 * n)) and found.n == n
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high
    robust = robust_accuracy(clean, fooled, scores, float(cut), n).value
    # both versions right, and one of them at the least
    assert robust <= found.value + 1e-12 and found.value <= (1 + robust) / 2 + 1e-12


@pytest.mark.parametrize("dependence", [-1.0, 0.0, 1.0])
def test_the_interval_of_an_accuracy_covers_the_truth(dependence: float) -> None:
    """Outcomes of an image's two versions that exclude, ignore and follow each other."""
    rng, hits = np.random.default_rng(5), 0
    for _ in range(400):
        z = rng.normal(size=80)
        other = {-1.0: -z, 0.0: rng.normal(size=80), 1.0: z}[dependence]
        # P(z <= 1) = P(other > -1) = .8413
        found = detection_accuracy(torch.from_numpy(z), torch.from_numpy(-other + 2), 1.0)
        hits += found.low <= 0.8413447 <= found.high
    assert 0.92 <= hits / 400 <= 1
    if dependence >= 0:
        assert hits / 400 <= 0.985
