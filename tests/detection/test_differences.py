"""Two detectors on the same images: DeLong's test and binomial counts by hand say the same."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from detection import auc
from detection.differences import Difference, mcnemar, paired_difference, paired_proportions

Array = np.ndarray


def delong(clean: tuple[Array, Array], adv: tuple[Array, Array]) -> tuple[float, float, float]:
    """Difference of two AUCs, its standard error and p-value (DeLong et al. 1988), from the kernel itself.

    Clean and adversarial scores are taken to be of distinct images, which are the same for both detectors.
    """
    kernels = [(a[:, None] > c) + 0.5 * (a[:, None] == c) for c, a in zip(clean, adv, strict=True)]
    difference = float(kernels[0].mean() - kernels[1].mean())
    by_adv = kernels[0].mean(axis=1) - kernels[1].mean(axis=1)
    by_clean = kernels[0].mean(axis=0) - kernels[1].mean(axis=0)
    error = math.sqrt(by_adv.var(ddof=1) / len(by_adv) + by_clean.var(ddof=1) / len(by_clean))
    return difference, error, 2 * NormalDist().cdf(-abs(difference) / error)


def two_detectors(rng: np.random.Generator, n: int, gap: float) -> tuple[tuple[Array, Array], ...]:
    """Scores of distinct clean and adversarial images by two detectors that see the same noise in part."""
    sides = []
    for shift in (0.0, 1.0):
        image = rng.normal(size=n)
        sides.append(tuple(image + shift * (1 + g) + rng.normal(size=n) for g in (gap, 0.0)))
    return tuple(sides)


@pytest.mark.parametrize("gap", [0.0, 0.15, 0.4])
def test_it_agrees_with_delong(gap: float) -> None:
    clean, adv = two_detectors(np.random.default_rng(1), 400, gap)
    difference, error, p = delong(clean, adv)
    found = paired_difference(clean[0], adv[0], clean[1], adv[1], resamples=4000)
    assert found.value == pytest.approx(difference, abs=1e-12)
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.08)
    assert found.p == pytest.approx(max(p, 2 / 4001), abs=0.03)
    assert found.n == 400


def test_under_the_null_p_is_uniform_and_the_interval_covers_zero() -> None:
    """Within four standard errors of what it claims, and close to DeLong's test on the same data.

    The percentile interval is a little narrow: over thousands of such trials it covers 94.1 to 94.5 %, DeLong's 95.2 %.
    """
    rng, trials, ps, others, covered = np.random.default_rng(2), 800, [], [], 0
    for trial in range(trials):
        clean, adv = two_detectors(rng, 80, 0.0)
        found = paired_difference(clean[0], adv[0], clean[1], adv[1], resamples=500, seed=10**6 + trial)
        ps.append(found.p)
        others.append(delong(clean, adv)[2])
        covered += found.low <= 0 <= found.high
    assert covered / trials == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / trials))
    for level in (0.05, 0.2, 0.5):
        rejected, control = (float(np.mean(np.array(values) <= level)) for values in (ps, others))
        assert rejected == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / trials))
        assert rejected == pytest.approx(control, abs=0.02)


def test_the_interval_covers_a_true_difference_of_paired_images() -> None:
    """Clean and adversarial versions of one image share its noise, and both detectors see it."""
    normal = NormalDist()
    truth = normal.cdf(1.2 / math.sqrt(2)) - normal.cdf(0.8 / math.sqrt(2))
    rng, covered, found_p = np.random.default_rng(3), 0, 0
    for trial in range(300):
        image = rng.normal(size=100)
        scores = [
            (
                image * 0.5 + rng.normal(size=100) * 0.75**0.5,
                image * 0.5 + shift + rng.normal(size=100) * 0.75**0.5,
            )
            for shift in (1.2, 0.8)
        ]
        found = paired_difference(*scores[0], *scores[1], resamples=300, seed=trial)
        covered += found.low <= truth <= found.high
        found_p += found.p < 0.05
    assert 0.90 <= covered / 300 <= 0.985
    assert found_p / 300 > 0.3  # the test has power


def test_pairing_takes_out_what_both_share() -> None:
    rng = np.random.default_rng(4)
    clean, adv = rng.normal(size=300), rng.normal(0.8, 1, size=300)
    worse = adv - 0.05
    shared = paired_difference(clean, adv, clean, worse)
    shuffled = rng.permutation(300)
    apart = paired_difference(clean, adv, clean[shuffled], worse[shuffled])
    assert shared.value == pytest.approx(apart.value)
    assert shared.high - shared.low < 0.2 * (apart.high - apart.low)
    assert shared.p < 0.01 < 0.05 < apart.p


def test_a_detector_and_itself_do_not_differ() -> None:
    clean, adv = np.arange(60.0), np.arange(60.0) + 3
    assert paired_difference(clean, adv, 5 * clean, 5 * adv) == Difference(0.0, 0.0, 0.0, 1.0, 60)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_bounds_and_symmetry(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    clean_a, adv_a, clean_b, adv_b = rng.integers(0, 4, (4, n)).astype(float)
    found = paired_difference(clean_a, adv_a, clean_b, adv_b, resamples=99)
    turned = paired_difference(clean_b, adv_b, clean_a, adv_a, resamples=99)
    assert found.value == pytest.approx(auc(clean_a, adv_a) - auc(clean_b, adv_b))
    assert -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9 and 2 / 100 <= found.p <= 1
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert turned.p == pytest.approx(found.p)


def test_p_has_its_smallest_value_where_no_resample_turns_the_sign() -> None:
    clean, apart = np.zeros(50), np.ones(50)
    found = paired_difference(clean, apart, clean, clean, resamples=199)
    assert (found.value, found.low, found.high, found.p) == (0.5, 0.5, 0.5, 2 / 200)


def test_scores_of_other_images_are_refused() -> None:
    ten, nine = np.arange(10.0), np.arange(9.0)
    with pytest.raises(ValueError, match="same images, got 10 and 9"):
        paired_difference(ten, ten, nine, nine)
    with pytest.raises(ValueError, match="one length, got 10 and 9"):
        paired_difference(ten, nine, ten, ten)
    with pytest.raises(ValueError, match="not finite"):
        paired_difference(ten, ten, ten, np.full(10, np.nan))


# ---- yes or no


def hits(both: int, only_a: int, only_b: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return torch.tensor(a, dtype=torch.bool), torch.tensor(b, dtype=torch.bool)


def test_mcnemar_by_hand() -> None:
    # 1 of 6: 2 (1 + 6) / 64
    assert mcnemar(*hits(9, 1, 5, 2)) == pytest.approx(14 / 64)
    assert mcnemar(*hits(0, 5, 0, 3)) == pytest.approx(2 / 32)
    assert mcnemar(*hits(4, 3, 3, 0)) == 1
    assert mcnemar(*hits(4, 0, 0, 5)) == 1


@given(*[st.integers(0, 12)] * 4)
def test_paired_proportions(both: int, only_a: int, only_b: int, neither: int) -> None:
    a, b = hits(both, only_a, only_b, neither)
    found, n = paired_proportions(a, b), both + only_a + only_b + neither
    if n == 0:
        assert found == Difference(None, None, None, None, 0)
        return
    assert found.value == pytest.approx(float(a.double().mean() - b.double().mean()))
    assert -1 <= found.low <= found.value <= found.high <= 1 and found.low < found.high
    assert found.p == mcnemar(a, b) == mcnemar(b, a) and found.n == n
    if only_a + only_b:
        assert found.p == pytest.approx(binomtest(only_b, only_a + only_b).pvalue)
    # more images on which both agree say nothing against the null
    assert mcnemar(*hits(both + 5, only_a, only_b, neither + 7)) == found.p


def test_the_interval_of_a_difference_of_rates_covers_the_truth() -> None:
    rng, covered = np.random.default_rng(6), 0
    for _ in range(500):
        cell = rng.choice(4, p=[0.5, 0.2, 0.1, 0.2], size=60)
        a, b = torch.from_numpy(cell < 2), torch.from_numpy((cell == 0) | (cell == 2))
        found = paired_proportions(a, b)
        covered += found.low <= 0.1 <= found.high
    assert 0.92 <= covered / 500 <= 0.98


def test_hits_of_other_images_are_refused() -> None:
    a, b = hits(1, 1, 1, 1)
    with pytest.raises(ValueError, match="same images, got 4 and 3"):
        mcnemar(a, b[:3])
    with pytest.raises(ValueError, match="hits of B must be a bool mask"):
        mcnemar(a, b.long())
