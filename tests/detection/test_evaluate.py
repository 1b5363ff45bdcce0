from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from detection import Interval, all_auc, auc, bootstrap_auc, paired_auc, tpr_at_fpr


def count_pairs(clean: np.ndarray, adv: np.ndarray) -> float:
    wins = [1.0 if a > c else 0.5 if a == c else 0.0 for c in clean for a in adv]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("offset", [0.0, -1000.0, 1e6])
def test_auc_counts_pairs_on_any_scale(offset: float) -> None:
    rng = np.random.default_rng(0)
    clean, adv = rng.normal(size=40) + offset, rng.normal(0.7, 1, size=30) + offset
    assert auc(torch.from_numpy(clean), torch.from_numpy(adv)) == pytest.approx(
        count_pairs(clean, adv), abs=1e-12
    )


def test_auc_counts_a_tie_as_one_half() -> None:
    rng = np.random.default_rng(1)
    clean, adv = rng.integers(0, 4, 50).astype(float), rng.integers(1, 5, 50).astype(float)
    assert auc(clean, adv) == pytest.approx(count_pairs(clean, adv), abs=1e-12)
    assert auc(np.ones(5), np.ones(7)) == 0.5


@pytest.mark.parametrize("paired", [True, False])
def test_bootstrap_equals_a_plain_loop(paired: bool) -> None:
    rng = np.random.default_rng(2)
    clean, adv = rng.integers(0, 9, 60).astype(float), rng.integers(3, 12, 60).astype(float)  # with ties
    draw = np.random.default_rng(7)
    rows = draw.integers(0, 60, (200, 60))
    columns = rows if paired else draw.integers(0, 60, (200, 60))
    values = [auc(clean[r], adv[c]) for r, c in zip(rows, columns, strict=True)]
    result = bootstrap_auc(clean, adv, paired=paired, resamples=200, seed=7)
    expected = (auc(clean, adv), *np.quantile(values, [0.025, 0.975]))
    assert (result.value, result.low, result.high) == pytest.approx(expected, abs=1e-12)


def test_bootstrap_in_blocks_is_seeded_and_takes_unequal_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    clean, adv = rng.normal(size=500), rng.normal(1, 1, size=120)
    monkeypatch.setattr("detection.resampling._BLOCK", 5000)  # ten resamples a block
    first = bootstrap_auc(clean, adv, seed=1)
    assert first == bootstrap_auc(clean, adv, seed=1) != bootstrap_auc(clean, adv, seed=2)
    assert first.n == 120 and first.low < first.value < first.high
    # Hanley and McNeil's standard error of an AUC, an independent estimate of the width
    a = first.value
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    se = math.sqrt((a * (1 - a) + 119 * (q1 - a * a) + 499 * (q2 - a * a)) / (500 * 120))
    assert (first.high - first.low) / (2 * 1.96 * se) == pytest.approx(1, abs=0.2)


def test_bootstrap_covers_the_true_auc() -> None:
    rng, truth = np.random.default_rng(4), NormalDist().cdf(1 / math.sqrt(2))
    hits = 0
    for trial in range(200):
        image = rng.normal(size=60)  # what a pair has in common
        clean, adv = image + rng.normal(size=60), image + math.sqrt(2) + rng.normal(size=60)
        result = bootstrap_auc(clean, adv, paired=True, resamples=300, seed=trial)
        hits += result.low <= truth <= result.high
    assert 0.88 <= hits / 200 <= 0.99


def test_pairs_stay_together() -> None:
    # the adversarial version always scores just above its own image: the pairing takes out most of the spread
    clean = np.random.default_rng(5).normal(size=200)
    paired = bootstrap_auc(clean, clean + 0.1, paired=True)
    split = bootstrap_auc(clean, clean + 0.1, paired=False)
    assert paired.high - paired.low < 0.3 * (split.high - split.low)


def test_paired_and_all_rules_choose_their_images() -> None:
    rng = np.random.default_rng(6)
    clean, adv = torch.from_numpy(rng.normal(size=100)), torch.from_numpy(rng.normal(size=100))
    correct, misclassified = torch.arange(100) < 80, torch.arange(100) % 4 != 0
    both = correct & misclassified
    paired = paired_auc(clean, adv, correct, misclassified)
    kept = all_auc(clean, adv, correct)
    assert paired.n == 60 and paired.value == auc(clean[both], adv[both])
    assert kept.n == 80 and kept.value == auc(clean[correct], adv[correct])


def test_too_few_pairs_give_only_their_number() -> None:
    scores, yes = torch.arange(60.0), torch.ones(60, dtype=torch.bool)
    few = torch.arange(60) < 49
    assert paired_auc(scores, scores, yes, few) == Interval(None, None, None, 49)
    assert all_auc(scores, scores, few) == Interval(None, None, None, 49)
    assert paired_auc(scores, scores, yes, few, min_n=49).n == 49
    assert paired_auc(scores, scores, yes, ~yes, min_n=0) == Interval(None, None, None, 0)


def test_tpr_at_fpr_by_hand() -> None:
    clean, adv = torch.arange(10.0), torch.tensor([0.5, 8.0, 8.5, 20.0])
    assert tpr_at_fpr(clean, adv, 0.1) == 0.5  # threshold 8: one clean score above, 8.5 and 20 caught
    assert tpr_at_fpr(clean, adv, 0.0) == 0.25


def test_unusable_scores_are_refused() -> None:
    good = torch.arange(60.0)
    yes = torch.ones(60, dtype=torch.bool)
    with pytest.raises(ValueError, match="no adversarial scores"):
        auc(good, good[:0])
    with pytest.raises(ValueError, match="1 of 2 clean scores are not finite"):
        auc(torch.tensor([0.0, math.inf]), good)
    with pytest.raises(ValueError, match="one length, got 60 and 59"):
        bootstrap_auc(good, good[1:], paired=True)
    with pytest.raises(ValueError, match="one length, got 60, 59 and 60"):
        all_auc(good, good[1:], yes)
    with pytest.raises(ValueError, match="correct must be a bool mask"):
        paired_auc(good, good, yes.long(), yes)
