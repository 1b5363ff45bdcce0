"""Kernels made ready block by block: against the kept ones and the plain formula, and what a query leaves behind."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection import KDE, Features, View
from detection import kde as kde_module
from detection import streamed as streamed_module
from detection.density import Densities
from detection.streamed import StreamedDensities

torch.set_num_threads(1)

CPU = torch.device("cpu")


def make(
    counts: tuple[int, ...], dim: int, n: int, seed: int, far: float = 1.0
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Kernels in float32 as features are, points and classes in no order."""
    generator = torch.Generator().manual_seed(seed)
    kernels = [torch.randn(m, dim, generator=generator) + 2 * c for c, m in enumerate(counts)]
    points = far * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return kernels, points, torch.randint(len(counts), (n,), generator=generator)


def plain(kernels: list[Tensor], h: float, points: Tensor, classes: Tensor) -> Tensor:
    """The definition, row by row, on differences in float64."""
    values = []
    for z, c in zip(points, classes.tolist(), strict=True):
        exponents = -(kernels[c].double() - z).square().sum(dim=1) / (2 * h * h)
        norm = math.log(len(kernels[c])) + 0.5 * len(z) * math.log(2 * math.pi * h * h)
        values.append(torch.logsumexp(exponents, dim=0) - norm)
    return torch.stack(values)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=5).map(tuple),
    dim=st.integers(1, 12),
    n=st.integers(1, 25),
    entries=st.sampled_from([1, 13, 40, 150, 2**22]),
    h=st.sampled_from([0.03, 0.2, 0.7, 5.0]),
    far=st.sampled_from([1.0, 300.0]),
    seed=st.integers(0, 2**31),
)
def test_blocks_give_what_the_whole_gives(
    counts: tuple[int, ...], dim: int, n: int, entries: int, h: float, far: float, seed: int
) -> None:
    kernels, points, classes = make(counts, dim, n, seed, far)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed_module, "ENTRIES", entries)
        got, slopes = StreamedDensities(kernels, h, CPU).evaluate(points, classes, gradient=True)
        alone = StreamedDensities(kernels, h, CPU)(points, classes)
    whole, steep = Densities([k.double() for k in kernels], h).evaluate(points, classes, gradient=True)
    assert slopes is not None and steep is not None
    torch.testing.assert_close(got, whole, rtol=1e-11, atol=1e-10)
    torch.testing.assert_close(slopes, steep, rtol=1e-8, atol=1e-9 * float(steep.abs().max()))
    torch.testing.assert_close(got, plain(kernels, h, points, classes), rtol=1e-11, atol=1e-10)
    assert torch.equal(alone, got)


@pytest.mark.parametrize("entries", [1, 30, 2**22])
def test_gradient_equals_finite_differences(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    monkeypatch.setattr(streamed_module, "ENTRIES", entries)
    kernels, points, classes = make((7, 1, 12), 4, 5, seed=1)
    densities = StreamedDensities(kernels, 0.6, CPU)
    assert torch.autograd.gradcheck(lambda z: densities(z, classes), points.requires_grad_())


@pytest.mark.parametrize("entries", [1, 13, 50, 65, 2**22])
def test_leave_one_out_equals_that_of_the_whole(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    monkeypatch.setattr(streamed_module, "ENTRIES", entries)
    kernels, _, _ = make((9, 2, 13), 4, 1, seed=2)
    whole = Densities([k.double() for k in kernels], 0.5)
    streamed = StreamedDensities(kernels, 0.5, CPU)
    for label in range(3):
        got = streamed.leave_one_out(label)
        torch.testing.assert_close(got, whole.leave_one_out(label), rtol=1e-11, atol=1e-11)


def test_log_densities_near_minus_1000_keep_their_order() -> None:
    """In 700 dimensions, differences of 1e-9 at -1000 are told apart, as the definition tells them."""
    dim, h = 700, 1.5
    kernels, _, _ = make((40,), dim, 1, seed=3)
    # along one direction the density falls in steps far below float32's resolution of 6e-5
    steps = torch.arange(200, dtype=torch.float64)[:, None] * 1e-8
    centre = kernels[0].double().mean(dim=0)
    points = centre + (30 + steps) * torch.nn.functional.normalize(
        torch.ones(dim, dtype=torch.float64), dim=0
    )
    got = StreamedDensities(kernels, h, CPU)(points, torch.zeros(200, dtype=torch.int64))
    assert float(got.min()) > -1300 and float(got.max()) < -1000
    assert bool((got.diff() < 0).all())
    # slope -30 / h^2 a unit, 1e-8 units a step
    torch.testing.assert_close(
        got[-1] - got[0], torch.tensor(-30 / h**2 * 199e-8, dtype=torch.float64), rtol=0.05, atol=0.0
    )


def features(seed: int, n: int = 120, dim: int = 6, classes: int = 4) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    points = torch.randn(n, dim, generator=generator) + labels[:, None]
    return Features(points, torch.nn.functional.one_hot(labels.roll(3), classes).float(), labels)


@pytest.mark.parametrize("rule", ["validation", "loo", "nn_median", 0.4])
def test_the_detector_scores_alike_either_way(monkeypatch: pytest.MonkeyPatch, rule: str | float) -> None:
    train, validation, test = features(0), features(1), features(2)
    kept = KDE(rule).fit(train, validation)
    wanted, limits = kept.score(test.view()), kept.leave_one_out_scores()
    monkeypatch.setattr(kde_module, "PREPARED", 0)
    monkeypatch.setattr(streamed_module, "ENTRIES", 50)
    large = KDE(rule).fit(train, validation)
    assert large.bandwidth_ == kept.bandwidth_
    torch.testing.assert_close(large.score(test.view()), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(large.leave_one_out_scores(), limits, rtol=1e-12, atol=1e-12)
    images = test.embeddings.clone().requires_grad_()
    (slope,) = torch.autograd.grad(large.score(View.from_features(images, test.logits)).sum(), images)
    assert slope.dtype == torch.float32 and bool((slope.abs().sum(dim=1) > 0).all())


def test_no_points() -> None:
    kernels, _, _ = make((3,), 2, 1, seed=0)
    got = StreamedDensities(kernels, 0.5, CPU)(torch.zeros(0, 2).double(), torch.zeros(0, dtype=torch.int64))
    assert got.shape == (0,) and got.dtype == torch.float64
