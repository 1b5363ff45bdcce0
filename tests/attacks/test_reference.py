"""Closed forms of the linear reference, noise of an attack's size, and a search that no detector watches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from sklearn.svm import SVC
from torch import Tensor, nn

from attacks import BIM, ClassifierSquare
from attacks.noise import noise_like
from attacks.objectives import margin
from attacks.reference import Linear, around, hide, reachable, separator


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["linf", "l2"]), size=st.floats(1e-3, 1.0))
def test_noise_to_a_ten_thousandth(dtype: torch.dtype, seed: int, norm: str, size: float) -> None:
    """Also of a small distance, at images that are mostly black and white: as the box cuts, the rest grows."""
    generator = torch.Generator().manual_seed(seed)
    x = (3 * torch.rand(3, 1, 6, 6, generator=generator, dtype=dtype) - 1).clamp(0, 1)
    x_adv = (x + size * torch.randn(x.shape, generator=generator, dtype=dtype).clamp(-1, 1)).clamp(0, 1)
    noisy = noise_like(x, x_adv, norm, seed, torch.arange(3))
    order = float("inf") if norm == "linf" else 2
    wanted, got = ((z - x).flatten(1).norm(p=order, dim=1) for z in (x_adv, noisy))
    ends = torch.where(noisy > x, 1 - noisy, noisy)
    blocked = (
        ((ends == 0) | (noisy == x)).flatten(1).all(dim=1)
    )  # every pixel at its end of the box: no further
    assert ((got - wanted).abs() <= 1e-4 * wanted)[~blocked].all()
    assert (got <= wanted * (1 + 1e-4))[blocked].all()


def test_no_noise_where_nothing_changed() -> None:
    x = torch.rand(2, 1, 4, 4)
    for norm in ("linf", "l2"):
        assert torch.equal(noise_like(x, x.clone(), norm, 0, torch.arange(2)), x)
    with pytest.raises(ValueError, match="shape of x"):
        noise_like(x, x[:1], "l2", 0, torch.arange(2))


def test_the_search_goes_on_where_asked() -> None:
    """Without early_stop, successes win by a wider margin."""
    model, _, _ = case(3)
    x = torch.rand(12, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    options = {"eps": 0.4, "queries": 60}
    first, last = (ClassifierSquare(**options, early_stop=stop)(model, x, y) for stop in (True, False))
    assert first.success.any() and torch.equal(first.success, last.success)
    won = first.success
    leads = [margin(model(found.x_adv[won]), y[won]) for found in (first, last)]
    assert (leads[1] >= leads[0]).all() and (leads[1] > leads[0] + 0.01).any()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_separator_is_a_hard_margin_svm_s(seed: int) -> None:
    random = np.random.default_rng(seed)
    inner, outer = random.normal(size=(40, 12)), 1.2 * random.normal(size=12)
    normal = separator(torch.from_numpy(inner), torch.from_numpy(outer)).numpy()
    inside = linprog(np.zeros(40), A_eq=np.vstack([inner.T, np.ones(40)]), b_eq=np.append(outer, 1)).success
    width = float(((outer - inner) @ normal).min())
    if inside:
        assert width <= 1e-6
        return
    fitted = SVC(kernel="linear", C=1e8, tol=1e-8).fit(np.vstack([inner, outer]), [0] * 40 + [1])
    theirs = 2 / np.linalg.norm(fitted.coef_)
    assert width / np.linalg.norm(normal) == pytest.approx(theirs, rel=1e-3)


class Net(nn.Module):
    """Convolutions with random weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = [nn.Conv2d(1, 12, 3, padding=1), nn.Tanh(), nn.Conv2d(12, 16, 3, stride=2), nn.Tanh()]
            self.layers = nn.Sequential(*layers, nn.Flatten())

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.layers(x)
        return z, z[:, :2]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
def test_what_is_hidden_is_there(norm: str, eps: float) -> None:
    net, image = Net().eval(), torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = hide(net, image, norm, eps, 0, 5)
    assert found is not None
    hidden, outer = found
    far = (outer - image).abs().max() if norm == "linf" else (outer - image).norm()
    assert float(far) <= eps + 1e-6 and float(outer.min()) >= 0 and float(outer.max()) <= 1
    assert hidden(outer).argmax() == 1
    noise = around(image, norm, eps / 2, 100, torch.Generator().manual_seed(3))
    assert not hidden(torch.cat([image, noise])).argmax(dim=1).any()
    assert margin(hidden(image), torch.tensor([0])).item() < -1
    again = hide(net, image, norm, eps, 0, 5)
    assert again is not None and torch.equal(again[1], outer)


def test_nothing_can_be_hidden_from_the_blind() -> None:
    class Blind(Net):
        def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros(len(x), 4), torch.zeros(len(x), 2)

    assert hide(Blind(), torch.rand(1, 1, 8, 8), "linf", 0.1, 0, 0) is None
