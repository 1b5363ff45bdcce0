"""The best pixel and the best pair: equal to the table of all pairs, whatever the gradients, in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import attacks.saliency as saliency
from attacks.saliency import best_pair, best_pixel

TIMES = settings(max_examples=80, deadline=None)


def all_pairs(gain: Tensor, drop: Tensor, allowed: Tensor) -> Tensor:
    """(n,) largest score of two allowed pixels, 0 where no pair has two positive sums."""
    gain, drop = gain.double(), drop.double()
    x, y = gain[:, :, None] + gain[:, None, :], drop[:, :, None] + drop[:, None, :]
    valid = (x > 0) & (y > 0) & allowed[:, :, None] & allowed[:, None, :]
    valid &= torch.ones(gain.shape[1], gain.shape[1], dtype=torch.bool).triu(1)
    return torch.where(valid, x * y, 0).flatten(1).amax(dim=1)


def check(gain: Tensor, drop: Tensor, allowed: Tensor | None = None) -> None:
    """The pair found has, to the last bit, the largest score there is."""
    allowed = torch.ones_like(gain, dtype=torch.bool) if allowed is None else allowed
    given = gain.clone(), drop.clone(), allowed.clone()
    pixels, found = best_pair(gain, drop, allowed)
    expected = all_pairs(gain, drop, allowed)
    x, y = gain.double().gather(1, pixels).sum(1), drop.double().gather(1, pixels).sum(1)
    assert torch.equal(found, expected > 0)
    assert torch.equal((x * y)[found], expected[found])
    assert allowed.gather(1, pixels)[found].all()
    assert (pixels[found, 0] != pixels[found, 1]).all()
    assert all(torch.equal(a, b) for a, b in zip(given, (gain, drop, allowed), strict=True))


def draw(seed: int, size: int, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gains and drops, in multiples of `step` where it is not 0 (ties), and which pixels are allowed."""
    generator = torch.Generator().manual_seed(seed)
    gain, drop = (torch.randn(3, size, generator=generator) for _ in range(2))
    if step:
        gain, drop = (gain / step).round() * step, (drop / step).round() * step
    return gain, drop, torch.rand(3, size, generator=generator) > 0.2


SIZES = st.integers(1, 150)
SEEDS = st.integers(0, 10**6)


@TIMES
@given(SEEDS, SIZES, st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([0.0, -0.5, -0.9, -0.99, 0.7]))
def test_equals_the_table_of_all_pairs(seed: int, size: int, step: float, opposed: float) -> None:
    gain, drop, allowed = draw(seed, size, step)
    check(gain, drop + opposed * gain, allowed)


@TIMES
@given(SEEDS, SIZES, st.sampled_from([1e-30, 1e-3, 1e3, 1e30]), st.integers(1, 9))
def test_whatever_the_scales_and_tails(seed: int, size: int, scale: float, power: int) -> None:
    """The two may differ by many powers of ten, and a single pixel may dwarf the others."""
    gain, drop, allowed = draw(seed, size, 0.0)
    check(gain.pow(power) * scale, drop, allowed)
    check(gain, drop.pow(power) * scale, allowed)
    check(gain.double().pow(power), -gain.double().pow(power) + drop.double(), allowed)


FRONTS = {
    "line": lambda u: (u, 1 - u),
    "line through zero": lambda u: (u - 0.4, 0.5 - u),
    "hyperbola": lambda u: ((4 * u - 2).exp(), (2 - 4 * u).exp()),
    "circle": lambda u: ((1.5708 * u).cos(), (1.5708 * u).sin()),
    "hollow": lambda u: ((1 - u) ** 3, u**3),
    "nearly a line": lambda u: (u, (1 - u) ** 1.02),
    "nearly one point": lambda u: (1 + 1e-3 * u, 1 - 1e-3 * u),
    "a few ulps": lambda u: (1 + (400 * u).round() * 2**-23, 1 - (400 * u).round() * 2**-23),
    "whole numbers": lambda u: ((200 * u).round(), 200 - (200 * u).round()),
    "two lines": lambda u: (u, (1 - u) * torch.where(torch.arange(u.shape[1]) % 2 > 0, 1.0, 0.9)),
    "two clusters": lambda u: (u.round() + 1e-3 * u, 1 - u.round() - 1e-3 * u),
}


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_pixel_on_the_front(name: str, dtype: torch.dtype) -> None:
    u = torch.rand(4, 500, generator=torch.Generator().manual_seed(3), dtype=dtype)
    gain, drop = FRONTS[name](u)
    check(gain, drop)
    check(drop, gain, torch.rand(4, 500, generator=torch.Generator().manual_seed(4)) > 0.3)


@TIMES
@given(SEEDS, st.sampled_from([1.0, 1e-6, 1e6]))
def test_no_bound_is_below_a_score(seed: int, scale: float) -> None:
    """Runs of columns against runs: the bound of a tile, and its scores."""
    generator = torch.Generator().manual_seed(seed)
    gain = torch.randn(2, 4, 1, saliency.SIDE, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 4, 1, saliency.SIDE, generator=generator, dtype=torch.float64)
    runs = torch.cat([gain + 0.5, (0.5 - gain + 0.01 * noise) * scale], dim=2)
    first, second = torch.triu_indices(4, 4)
    scores = saliency._table(runs, torch.arange(2), first.expand(2, -1), second.expand(2, -1)).amax(
        dim=(2, 3)
    )
    assert (saliency._bounds(runs, first, second) >= scores).all()


@TIMES
@given(
    *[st.floats(1e-12, 1e3)] * 2,
    st.floats(1e-3, 1e3),
    st.floats(0.0, 1.0),
)
def test_ceiling_is_the_maximum_on_the_line(x: float, y: float, lean: float, share: float) -> None:
    """Between the smaller of the two terms and their sum, `both` cuts a corner off; a fine grid finds the maximum."""
    small, large = sorted([x * lean, y / lean])
    both = large + share * small
    a, b, c, d = (torch.tensor(value, dtype=torch.float64) for value in (x, y, both, lean))
    bound = float(saliency._ceiling(a, b, c, d))
    grid = torch.linspace(0, 1, 20001, dtype=torch.float64) * x
    value = (grid * ((both - grid * lean) * lean).clamp(max=y)).max()
    assert bound >= float(value) * (1 - 1e-9)
    assert bound == pytest.approx(float(value), rel=1e-3)


def test_vanishing_gradients_are_not_lost() -> None:
    """Products of float32 numbers below 1e-38: of a pair, and of a pixel."""
    gain, drop = torch.tensor([[1e-25, 3e-25, 2e-25]]), torch.tensor([[1e-25, 3e-25, 2e-25]])
    allowed = torch.ones(1, 3, dtype=torch.bool)
    pixels, found = best_pair(gain, drop, allowed)
    assert found.tolist() == [True]
    assert sorted(pixels[0].tolist()) == [1, 2]
    pixel, found = best_pixel(gain, drop, allowed)
    assert (pixel.tolist(), found.tolist()) == ([[1]], [True])


def test_no_pair_without_two_allowed_pixels() -> None:
    gain, drop = torch.ones(4, 5), torch.ones(4, 5)
    allowed = torch.zeros(4, 5, dtype=torch.bool)
    allowed[1, 3] = True
    allowed[2, [0, 4]] = True
    gain[3] = -1  # both sums negative, the product positive
    drop[3] = -1
    pixels, found = best_pair(gain, drop, allowed | (torch.arange(4) == 3)[:, None])
    assert found.tolist() == [False, False, True, False]
    assert sorted(pixels[2].tolist()) == [0, 4]
    assert ((pixels >= 0) & (pixels < 5)).all()


@pytest.mark.parametrize("size", [1, 2, 33])
def test_rows_without_any_finite_value(size: int) -> None:
    for value in (-torch.inf, torch.inf, torch.nan):
        bad = torch.full((2, size), value)
        allowed = torch.ones(2, size, dtype=torch.bool)
        for gain, drop in ((bad, bad), (bad, torch.ones(2, size)), (torch.ones(2, size), bad)):
            pixels, found = best_pair(gain, drop, allowed)
            assert not found.any()
            assert ((pixels >= 0) & (pixels < size)).all()
            assert not best_pixel(gain, drop, allowed)[1].any()


def test_pixels_that_are_not_finite_are_left_out() -> None:
    gain, drop = (
        torch.tensor([[torch.inf, 1.0, torch.nan, 2.0, 3.0]]),
        torch.tensor([[9.0, 1.0, 9.0, 2.0, 3.0]]),
    )
    pixels, found = best_pair(gain, drop, torch.ones(1, 5, dtype=torch.bool))
    assert found.all()
    assert sorted(pixels[0].tolist()) == [3, 4]
    assert best_pixel(gain, drop, torch.ones(1, 5, dtype=torch.bool))[0].tolist() == [[4]]


@pytest.mark.parametrize("size", [2, 32, 33, 200])
def test_equal_values(size: int) -> None:
    check(torch.full((3, size), 0.5), torch.full((3, size), 2.0))
    check(torch.full((3, size), 0.5), torch.zeros(3, size))


@TIMES
@given(SEEDS, st.integers(2, 120), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_row_does_not_depend_on_its_batch(seed: int, size: int, step: float) -> None:
    """Also where several pairs are equally good, and whatever is searched at once."""
    gain, drop, allowed = draw(seed, size, step)
    gain[1] = torch.linspace(
        0, 1, size
    )  # a row with many candidates, which alters how the others are laid out
    drop[1] = 1 - gain[1]
    pixels, found = best_pair(gain, drop, allowed)
    alone = [best_pair(gain[i : i + 1], drop[i : i + 1], allowed[i : i + 1]) for i in range(3)]
    assert torch.equal(found, torch.cat([part[1] for part in alone]))
    assert torch.equal(pixels[found], torch.cat([part[0] for part in alone])[found])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saliency, "AT_ONCE", 1)
        small = best_pair(gain, drop, allowed)
    assert torch.equal(small[0][found], pixels[found])
    assert torch.equal(small[1], found)


def test_best_pixel_by_hand() -> None:
    gain = torch.tensor([[2.0, -5.0, 3.0, 9.0], [1.0, 1.0, 1.0, -1.0]])
    drop = torch.tensor([[2.0, -5.0, 1.0, 9.0], [-1.0, 0.0, -2.0, 4.0]])
    allowed = torch.tensor([[True, True, True, False], [True, True, True, True]])
    pixel, found = best_pixel(gain, drop, allowed)
    assert found.tolist() == [True, False]
    assert pixel[0].tolist() == [0]


MEMORY = """
import resource, sys, torch
from attacks.saliency import best_pair
torch.set_num_threads(1)
size = int(sys.argv[1])
gain = torch.rand(64, size, generator=torch.Generator().manual_seed(0))
allowed = torch.ones(64, size, dtype=torch.bool)
best_pair(gain[:1, :9], gain[:1, :9], allowed[:1, :9])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for drop in (1 - gain, 0.5 - gain, 1 - gain + 1e-7 * gain.flip(1)):
    best_pair(gain, drop, allowed)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize("size", [3 * 32 * 32, 3 * 64 * 64])
def test_memory_where_nothing_can_be_pruned_at_once(size: int) -> None:
    """64 images with every pixel on the front: in MB, more than at the start. One table would be 1.2 GB an image."""
    command, root = [sys.executable, "-c", MEMORY, str(size)], Path(__file__).parents[2]
    out = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert int(out) < 500
