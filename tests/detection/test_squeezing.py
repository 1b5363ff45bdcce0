"""Squeezers against scipy and plain loops; the score by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from scipy.special import softmax
from torch import Tensor, nn

from detection import Features, FeatureSqueezing, View, squeezers
from detection.squeezers import median, mirror, non_local_means, reduce_bits

torch.set_num_threads(1)

IMAGES = torch.rand(5, 3, 7, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("window", [2, 3, 4, 5])
def test_median_equals_scipy(window: int) -> None:
    expected = median_filter(IMAGES.numpy(), size=(1, 1, window, window), mode="reflect")
    assert torch.equal(median(IMAGES, window), torch.from_numpy(expected))


def test_windows_are_sorted_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, seen = median(IMAGES, 4), []
    monkeypatch.setattr(squeezers, "AT_ONCE", 5 * 3 * 9 * 16 * 2)  # two of the seven rows
    sort = Tensor.sort
    monkeypatch.setattr(Tensor, "sort", lambda x, dim: seen.append(x.numel()) or sort(x, dim))
    assert torch.equal(median(IMAGES, 4), whole)
    assert seen == [squeezers.AT_ONCE] * 3 + [squeezers.AT_ONCE // 2]


def test_mirror_equals_numpy() -> None:
    expected = np.pad(IMAGES.numpy(), ((0, 0), (0, 0), (11, 3), (11, 3)), mode="symmetric")
    assert torch.equal(mirror(IMAGES, 11, 3), torch.from_numpy(expected))


@pytest.mark.parametrize("bits", [1, 5, 8])
def test_bits(bits: int) -> None:
    squeezed = reduce_bits(IMAGES, bits)
    assert torch.equal(squeezed, torch.from_numpy(np.rint(IMAGES.numpy() * (2**bits - 1)) / (2**bits - 1)))
    assert len(squeezed.unique()) <= 2**bits
    assert torch.equal(reduce_bits(squeezed, bits), squeezed)


def test_one_bit_is_black_and_white() -> None:
    assert reduce_bits(torch.tensor([0.0, 0.49, 0.5, 0.51, 1.0]), 1).tolist() == [0, 0, 0, 1, 1]


def plain_non_local_means(image: np.ndarray, search: int, patch: int, strength: float) -> np.ndarray:
    reach, half = search // 2, patch // 2
    wide = np.pad(image, ((0, 0), (reach + half,) * 2, (reach + half,) * 2), mode="symmetric")
    result = np.zeros_like(image)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            a, b = i + reach + half, j + reach + half
            own, total, weights = wide[:, a - half : a + half + 1, b - half : b + half + 1], 0.0, 0.0
            for p in range(a - reach, a + reach + 1):
                for q in range(b - reach, b + reach + 1):
                    other = wide[:, p - half : p + half + 1, q - half : q + half + 1]
                    w = math.exp(-((own - other) ** 2).mean() / (strength / 255) ** 2)
                    total, weights = total + w * wide[:, p, q], weights + w
            result[:, i, j] = total / weights
    return result


@pytest.mark.parametrize(("search", "patch", "strength"), [(5, 3, 60.0), (3, 1, 20.0), (3, 5, 100.0)])
def test_non_local_means_equals_plain_loops(search: int, patch: int, strength: float) -> None:
    expected = [plain_non_local_means(image, search, patch, strength) for image in IMAGES[:2].numpy()]
    found = non_local_means(IMAGES[:2], search, patch, strength)
    torch.testing.assert_close(found, torch.from_numpy(np.stack(expected)), rtol=1e-10, atol=1e-12)


def test_non_local_means_takes_noise_from_a_flat_image_and_keeps_an_edge() -> None:
    clean = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    clean[..., 6:] = 1
    noisy = clean + 0.01 * torch.randn(
        clean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    found = non_local_means(noisy, 7, 3, 10.0)
    assert (found - clean).std() < 0.4 * (noisy - clean).std()


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 7 * 9, 4).double()

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), 5 * self.layer(x.flatten(1))


def ready(**options: object) -> FeatureSqueezing:
    train = Features(torch.zeros(1, 1), torch.zeros(1, 4), torch.zeros(1).long())
    return FeatureSqueezing(**options).fit(train, train)


def test_score_is_the_largest_l1_distance() -> None:
    model = Linear()

    def probabilities(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return softmax(model.embed_and_logits(torch.from_numpy(x))[1].numpy(), axis=1)

    x = IMAGES.numpy()
    squeezed = [
        np.rint(7 * x) / 7,
        median_filter(x, size=(1, 1, 2, 2), mode="reflect"),
        median_filter(x, size=(1, 1, 3, 3), mode="reflect"),
        np.stack([plain_non_local_means(image, 3, 3, 60) for image in x]),
    ]
    gaps = np.stack([np.abs(probabilities(x) - probabilities(s)).sum(axis=1) for s in squeezed])
    detector = ready(bits=3, medians=[2, 3], non_local=[3, 3, 60])
    scores = detector.score(View.from_model(model, IMAGES))
    torch.testing.assert_close(scores, torch.from_numpy(gaps.max(axis=0)), rtol=1e-9, atol=1e-12)
    assert len(set(gaps.argmax(axis=0))) > 1  # more than one squeezer counts
    alone = ready(bits=3, medians=[]).score(View.from_model(model, IMAGES))
    torch.testing.assert_close(alone, torch.from_numpy(gaps[0]), rtol=1e-9, atol=1e-12)


def test_an_image_that_squeezing_leaves_scores_zero() -> None:
    flat = torch.ones(2, 3, 7, 9, dtype=torch.float64)
    assert ready().score(View.from_model(Linear(), flat)).tolist() == [0, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 0},
        {"bits": 9},
        {"medians": [1]},
        {"non_local": [4, 3, 2]},
        {"non_local": [3, 3]},
        {"non_local": [3, 3, 0]},
        {"bits": None, "medians": []},
    ],
)
def test_hyper_parameters_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FeatureSqueezing(**wrong)
