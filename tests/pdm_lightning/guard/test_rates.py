"""Thresholds and p-values against hand-counted ones, and sharing images out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdm_lightning.guard.checks import GuardFileError
from pdm_lightning.guard.gather import halves, share_out
from pdm_lightning.guard.rates import Rate, alarm_threshold, ceiling, images_for, p_values


def test_p_values_by_hand() -> None:
    clean = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    scores = torch.tensor([0.0, 2.0, 2.5, 4.0, 9.0], dtype=torch.float64)
    assert p_values(scores, clean).tolist() == [5 / 5, 4 / 5, 3 / 5, 2 / 5, 1 / 5]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # drawing is slow on a busy machine
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=40), st.floats(0.01, 1))
def test_p_values_never_promise_too_much(scores: list[int], level: float) -> None:
    """Of n + 1 exchangeable images, each held against the others, at most a share `level` has p <= level; ties too."""
    found = []
    for place, score in enumerate(scores):
        others = torch.tensor(sorted(scores[:place] + scores[place + 1 :]), dtype=torch.float64)
        found.append(float(p_values(torch.tensor([float(score)], dtype=torch.float64), others)))
    assert sum(p <= level for p in found) <= level * len(scores) + 1e-9
    assert all(0 < p <= 1 for p in found)


def test_p_values_are_uniform_on_clean_data() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(4000, generator=generator, dtype=torch.float64).exp().sort().values
    found = p_values(torch.randn(4000, generator=generator, dtype=torch.float64).exp(), clean).sort().values
    steps = torch.arange(1, 4001, dtype=torch.float64) / 4000
    # two samples of n are apart by more than this once in a million (Smirnov: 2 exp(-n d^2))
    assert float((found - steps).abs().max()) < math.sqrt(math.log(2e6) / 4000) + 1 / 4000


def test_threshold_by_hand() -> None:
    scores = torch.arange(1.0, 101.0)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    assert alarm_threshold(scores, 0.1) == 90.0  # 91..100 lie above it
    assert alarm_threshold(scores, 0.5) == 50.0


def test_too_few_images_for_the_rate() -> None:
    with pytest.raises(
        ValueError, match=r"0.1 needs 100 clean validation images, there are 99: give more, or a rate"
    ):
        alarm_threshold(torch.arange(99.0), 0.1)
    rate = ceiling(10 / 99)
    assert rate == 0.102
    alarm_threshold(torch.arange(99.0), rate)  # the rate that the message names is enough
    with pytest.raises(ValueError, match=r"there are 4: give more$"):
        alarm_threshold(torch.arange(4.0), 0.5)


@pytest.mark.parametrize("rate", [0, -0.1, 0.51, 1, True, math.nan])
def test_rates_that_are_none(rate: float) -> None:
    with pytest.raises(ValueError, match=r"above 0 and be at most 0.5"):
        alarm_threshold(torch.arange(1000.0), rate)


@settings(deadline=None)
@given(st.integers(40, 3000), st.sampled_from([0.02, 0.05, 0.1, 0.5]), st.integers(2, 30))
def test_sharing_out(n: int, rate: float, count: int) -> None:
    """Every image has one purpose, each part is large enough, and kernels have every class."""
    classes = torch.arange(n) % count
    rest = n - n // 4 - max(n // 4, images_for(rate))
    if n >= 2 * images_for(rate) and rest < count:
        with pytest.raises(ValueError, match=f"leave {rest} to fit the detector"):
            share_out(classes, rate, 0)
        return
    if n < 2 * images_for(rate):
        with pytest.raises(ValueError, match=f"{n} clean images are too few"):
            share_out(classes, rate, 0)
        return
    parts = share_out(classes, rate, 0)
    assert torch.cat(parts).sort().values.tolist() == list(range(n))
    kernels, validation, held_out = map(len, parts)
    assert validation >= images_for(rate)
    assert held_out == n // 4
    assert kernels >= n // 4
    assert len(classes[parts[0]].unique()) == count


def test_sharing_out_names_a_rate_that_would_do() -> None:
    with pytest.raises(
        ValueError, match=r"100 clean images .* 400 needed, 200 of them .* raise the rate to 0.2$"
    ):
        share_out(torch.arange(100) % 3, 0.05, 0)
    share_out(torch.arange(100) % 3, 0.2, 0)
    with pytest.raises(ValueError, match="40 images at the very least"):
        share_out(torch.arange(30) % 3, 0.05, 0)


def test_halves_of_given_validation_images() -> None:
    inner, out = halves(1000, 0.05, 0)
    assert (len(inner), len(out)) == (500, 500)
    inner, out = halves(250, 0.05, 0)
    assert (len(inner), len(out)) == (200, 50)
    assert torch.cat([inner, out]).sort().values.tolist() == list(range(250))


def test_rates_in_words_and_in_json() -> None:
    # Wilson's interval of 5 of 100, worked out by hand: centre (.05 + z^2/200) / (1 + z^2/100), z = 1.959964
    assert str(Rate(5, 100)) == "5.0 % [2.2, 11.2] of 100"
    assert Rate.from_json(Rate(5, 100).to_json(), "x") == Rate(5, 100)
    with pytest.raises(GuardFileError, match="x: more hits than images"):
        Rate.from_json({"hits": 3, "n": 2}, "x")
