from __future__ import annotations

import pytest
import torch

from pdm_lightning.data.pairs import pair_indices


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("q", [0.0, 0.3, 1.0])
def test_same_tells_the_truth(q: float) -> None:
    labels = torch.randint(7, (500,), generator=rng(1)) * 3
    partner, same = pair_indices(labels, q, rng())
    assert partner.shape == same.shape == (500,)
    assert torch.equal(labels[partner] == labels, same)
    assert abs(same.double().mean() - q) < 0.07


def test_partners_follow_algorithm_1() -> None:
    """Other classes uniform whatever their sizes, images uniform within the class; by chi-squared."""
    labels = torch.tensor([0] * 2000 + [1] * 30 + [2] * 10 + [3] * 60)
    anchors = labels == 0
    counts = torch.zeros(len(labels))
    for seed in range(10):
        partner, _ = pair_indices(labels, 0.0, rng(seed))
        counts += torch.bincount(partner[anchors], minlength=len(labels))
    per_class = torch.stack([counts[labels == c].sum() for c in (1, 2, 3)])
    expected = 20_000 / 3
    assert ((per_class - expected) ** 2 / expected).sum() < 13.8  # 2 degrees of freedom, p = .001
    for c, n in ((1, 30), (2, 10), (3, 60)):
        mine = counts[labels == c]
        mean = mine.mean()
        assert ((mine - mean) ** 2 / mean).sum() < n - 1 + 4 * (2 * (n - 1)) ** 0.5


def test_same_class_partners_reach_every_image() -> None:
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    reached = {int(pair_indices(labels, 1.0, rng(s))[0][0]) for s in range(60)}
    assert reached == {0, 2, 4}


def test_seed_decides() -> None:
    labels = torch.arange(50) % 5
    assert torch.equal(pair_indices(labels, 0.5, rng(2))[0], pair_indices(labels, 0.5, rng(2))[0])
    assert not torch.equal(pair_indices(labels, 0.5, rng(2))[0], pair_indices(labels, 0.5, rng(3))[0])


def test_one_class() -> None:
    partner, same = pair_indices(torch.full((4,), 3), 1.0, rng())
    assert same.all() and partner.max() < 4
    with pytest.raises(ValueError, match="at least 2 classes"):
        pair_indices(torch.zeros(4).long(), 0.5, rng())


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_q_is_a_probability(q: float) -> None:
    with pytest.raises(ValueError, match=r"defense\.q between 0 and 1"):
        pair_indices(torch.arange(4) % 2, q, rng())
