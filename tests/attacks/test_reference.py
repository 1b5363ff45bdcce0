"""Closed forms of the linear reference, noise of an attack's size, and a search that no detector watches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from attacks import BIM, ClassifierSquare
from attacks.noise import noise_like
from attacks.reference import Linear, reachable


def case(seed: int, n: int = 3) -> tuple[Linear, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, generator=generator, dtype=torch.float64)
    x = torch.rand(n, 1, 2, 3, generator=generator, dtype=torch.float64)
    return Linear(weight, 0.1), x, torch.arange(n) % 2


@pytest.mark.parametrize("seed", range(4))
def test_linf_is_the_linear_program_s(seed: int) -> None:
    model, x, y = case(seed)
    found = reachable(model, x, y, "linf", 0.3)
    for row in range(len(x)):
        sign = 1 if y[row] == 1 else -1
        flat = x[row].flatten().numpy()
        bounds = [(max(-0.3, -v), min(0.3, 1 - v)) for v in flat]
        best = linprog(sign * model.weight.detach().numpy(), bounds=bounds)
        assert float(found[row]) == pytest.approx(-best.fun, abs=1e-9)


@pytest.mark.parametrize("eps", [0.2, 0.9])
def test_l2_is_what_slsqp_finds(eps: float) -> None:
    model, x, y = case(7)
    found = reachable(model, x, y, "l2", eps)
    for row in range(len(x)):
        w = (1 if y[row] == 1 else -1) * model.weight.detach().numpy()
        flat = x[row].flatten().numpy()
        best = minimize(
            lambda d, w=w: float(w @ d),
            np.zeros(6),
            method="SLSQP",
            bounds=[(-v, 1 - v) for v in flat],
            constraints={"type": "ineq", "fun": lambda d: eps**2 - d @ d},
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert float(found[row]) == pytest.approx(-best.fun, abs=1e-5)


def test_an_unbounded_fall_is_all_the_box_has() -> None:
    model, x, y = case(1)
    assert torch.allclose(
        reachable(model, x, y, "l2", float("inf")), reachable(model, x, y, "linf", 1.0), atol=1e-12
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["linf", "l2"]), size=st.floats(0.01, 0.4))
def test_noise_has_the_attack_s_distance(seed: int, norm: str, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 1, 5, 5, generator=generator)
    x_adv = (x + size * torch.randn(x.shape, generator=generator).clamp(-1, 1)).clamp(0, 1)
    index = torch.arange(4) + 10
    noisy = noise_like(x, x_adv, norm, 3, index)
    assert float(noisy.min()) >= 0 and float(noisy.max()) <= 1
    order = float("inf") if norm == "linf" else 2
    wanted, got = ((z - x).flatten(1).norm(p=order, dim=1) for z in (x_adv, noisy))
    assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-5)
    alone = noise_like(x[2:3], x_adv[2:3], norm, 3, index[2:3])
    assert torch.allclose(alone, noisy[2:3], atol=1e-6)
    assert not torch.allclose(noisy, x_adv)


def test_a_search_without_detector_finds_what_a_gradient_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    model = Linear(torch.randn(64, generator=generator), 0.0)
    x = torch.rand(40, 1, 8, 8, generator=generator)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    reach = reachable(model, x, y, "linf", 0.1)
    with torch.no_grad():
        falls = reach > (model(x)[:, 1] - model(x)[:, 0]).abs().double()
    gradient = BIM(eps=0.1)(model, x, y).success
    assert torch.equal(gradient, falls)
    searched = ClassifierSquare(eps=0.1, queries=400)(model, x, y)
    assert not bool((searched.success & ~falls).any())  # nobody reaches further than the closed form
    assert int(searched.success.sum()) >= 0.7 * int(falls.sum()) > 0
