"""The mean AUC over several attacks on the same images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.averages import mean_auc
from detection.evaluate import auc, bootstrap_auc

Run = tuple[Tensor, Tensor, Tensor]


def run(index: Tensor, shift: float, seed: int, hard: Tensor | None = None) -> Run:
    """Scores that are `shift` apart, of which `hard` images are less so."""
    generator = torch.Generator().manual_seed(seed)
    clean, adversarial = torch.randn(2, len(index), generator=generator, dtype=torch.float64)
    return index, clean, adversarial + shift - (0 if hard is None else 2 * hard[index].double())


def test_of_one_attack_it_is_its_own_interval() -> None:
    one = run(torch.arange(120), 1.0, 0)
    found, alone = mean_auc([one]), bootstrap_auc(one[1], one[2], paired=True)
    assert found.value == alone.value and found.n == 120
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=1e-12)


def test_value_is_the_mean_and_n_the_least() -> None:
    runs = [run(torch.arange(100), 1.0, 0), run(torch.arange(50, 110), 2.0, 1)]
    found = mean_auc(runs)
    assert found.value == pytest.approx(np.mean([auc(clean, adv) for _, clean, adv in runs]))
    assert found.n == 60 and found.low < found.value < found.high


def test_rows_are_told_apart_by_the_numbers_of_their_images() -> None:
    runs = [run(torch.arange(100), 1.0, 0), run(torch.arange(60), 2.0, 1)]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    shuffled = tuple(part[order] for part in runs[1])
    again = mean_auc([runs[0], shuffled])  # type: ignore[list-item]
    assert (again.low, again.high) == pytest.approx((mean_auc(runs).low, mean_auc(runs).high), abs=1e-12)


def test_what_is_hard_under_each_attack_makes_the_mean_less_certain() -> None:
    """The same image drawn for all attacks: as if each were drawn by itself, the interval would be too narrow."""
    index = torch.arange(200)
    hard = index % 3 == 0
    together = mean_auc([run(index, 2.0, seed, hard) for seed in range(8)])
    # the same scores as attacks on images of their own: nothing is shared
    apart = [(index + 1000 * seed, *run(index, 2.0, seed, hard)[1:]) for seed in range(8)]
    alone = mean_auc(apart)
    assert together.value == alone.value
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Images whose hardness all attacks share, 200 times: the true mean lies inside in about 95 of 100."""
    truth, inside = [], 0
    draws = []
    for trial in range(200):
        generator = torch.Generator().manual_seed(trial)
        hard = torch.randn(80, generator=generator, dtype=torch.float64)
        runs = []
        for k in range(3):
            clean, noise = torch.randn(2, 80, generator=generator, dtype=torch.float64)
            runs.append((torch.arange(80), clean, noise + 1.5 + hard + 0.2 * k))
        draws.append(mean_auc(runs, resamples=200))
        truth.append(draws[-1].value)
    mean = float(np.mean(truth))
    inside = sum(found.low <= mean <= found.high for found in draws)
    assert 0.89 <= inside / len(draws) <= 0.985


def test_no_attack_is_an_error() -> None:
    with pytest.raises(ValueError, match="no attacks"):
        mean_auc([])
    with pytest.raises(ValueError, match="one length"):
        mean_auc([(torch.arange(3), torch.zeros(3), torch.zeros(2))])
