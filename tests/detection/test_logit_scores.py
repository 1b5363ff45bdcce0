"""MSP, non-maximal entropy, largest logit, energy and ODIN against their formulas."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_ood.detector import ODIN as ReferenceODIN
from pytorch_ood.detector import EnergyBased, MaxSoftmax
from pytorch_ood.detector import MaxLogit as ReferenceMaxLogit
from scipy.special import logsumexp, softmax
from scipy.stats import entropy as scipy_entropy
from torch import Tensor, nn

from detection import MSP, ODIN, Energy, Features, MaxLogit, NonMaximalEntropy, ODINInput, View
from detection.logit_score import LogitScore

torch.set_num_threads(1)

LOGITS = 3 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
rows = st.lists(st.floats(-30, 30), min_size=4, max_size=4).map(
    lambda r: torch.tensor([r], dtype=torch.float64)
)


def ready(detector: LogitScore, classes: int = 5) -> LogitScore:
    train = Features(torch.zeros(1, 2), torch.zeros(1, classes), torch.zeros(1, dtype=torch.int64))
    return detector.fit(train, train)


def view(logits: Tensor) -> View:
    return View.from_features(torch.zeros(len(logits), 2), logits)


def score(detector: LogitScore, logits: Tensor = LOGITS) -> Tensor:
    return ready(detector, logits.shape[1]).score(view(logits))


def close(actual: Tensor, expected: np.ndarray | Tensor, rtol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=rtol, atol=1e-12)


def test_msp_is_the_logarithm_of_one_minus_the_probability() -> None:
    close(score(MSP()), np.log1p(-softmax(LOGITS.numpy(), axis=1).max(axis=1)))


def test_msp_ranks_as_pytorch_ood_does() -> None:
    reference = MaxSoftmax.score(LOGITS)
    assert torch.equal(score(MSP()).argsort(), reference.argsort())


def test_msp_does_not_saturate() -> None:
    margins = torch.tensor([40.0, 41.0, 60.0, 300.0, 5000.0], dtype=torch.float64)
    logits = torch.zeros(5, 5, dtype=torch.float64)
    logits[:, 2] = margins
    assert (MaxSoftmax.score(logits) == -1).all()  # why this is own code
    scores = score(MSP(), logits)
    mpmath.mp.dps = 3000
    for value, margin in zip(scores.tolist(), margins.tolist(), strict=True):
        p = mpmath.exp(margin) / (mpmath.exp(margin) + 4)
        assert value == pytest.approx(float(mpmath.log(1 - p)), rel=1e-12)
    leaf = logits.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(ready(MSP()).score(view(leaf)).sum(), leaf)
    close(slope[:, 2], -torch.ones(5, dtype=torch.float64))


def test_entropy_by_hand() -> None:
    # the others have probabilities 1/2, 1/4, 1/4 among themselves: 1.5 bits
    logits = torch.tensor([[9.0, np.log(2), 0.0, 0.0]], dtype=torch.float64)
    close(score(NonMaximalEntropy(), logits), torch.tensor([-1.5 * np.log(2)], dtype=torch.float64))


def test_entropy_equals_scipy() -> None:
    expected = []
    for row in softmax(LOGITS.numpy(), axis=1):
        others = np.delete(row, row.argmax())
        expected.append(-scipy_entropy(others / others.sum()))
    close(score(NonMaximalEntropy()), np.array(expected))


def test_entropy_is_lower_where_one_wrong_class_stands_out() -> None:
    even, odd = torch.tensor([[9.0, 0, 0, 0], [9.0, 7, 0, 0]], dtype=torch.float64)
    scores = score(NonMaximalEntropy(), torch.stack([even, odd]))
    assert scores[1] > scores[0]


def test_entropy_needs_three_classes() -> None:
    with pytest.raises(ValueError, match="at least 3 classes, got 2"):
        ready(NonMaximalEntropy(), 2)


def test_max_logit() -> None:
    close(score(MaxLogit()), -LOGITS.numpy().max(axis=1))
    assert torch.equal(score(MaxLogit()), ReferenceMaxLogit.score(LOGITS))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 25.0])
def test_energy(temperature: float) -> None:
    scores = score(Energy(temperature))
    close(scores, -temperature * logsumexp(LOGITS.numpy() / temperature, axis=1))
    assert torch.equal(scores, EnergyBased.score(LOGITS, t=temperature))


@pytest.mark.parametrize("temperature", [1.0, 10.0, 1000.0])
def test_odin_is_the_softmax_at_a_temperature(temperature: float) -> None:
    close(
        score(ODIN(temperature)),
        np.log1p(-softmax(LOGITS.numpy() / temperature, axis=1).max(axis=1)),
        rtol=1e-8,
    )


@pytest.mark.parametrize("kind", [MSP, ODIN, MaxLogit])
def test_another_class_than_the_predicted_looks_more_adversarial(kind: type) -> None:
    detector, best = ready(kind()), LOGITS.argmax(dim=1)
    assert (detector.score_as(view(LOGITS), (best + 1) % 5) > detector.score(view(LOGITS))).all()
    if kind is not MaxLogit:
        p = softmax(LOGITS.numpy() / getattr(detector, "temperature", 1), axis=1)[:, 3]
        close(detector.score_as(view(LOGITS), torch.full((40,), 3)), np.log1p(-p), rtol=1e-8)


@pytest.mark.parametrize("kind", [MSP, NonMaximalEntropy, MaxLogit, Energy, ODIN])
def test_gradient_is_the_derivative(kind: type) -> None:
    detector = ready(kind())
    leaf = LOGITS[:6].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda logits: detector.score(view(logits)), leaf)


@pytest.mark.parametrize("kind", [MSP, NonMaximalEntropy, MaxLogit, Energy, ODIN])
@settings(max_examples=25, deadline=None)
@given(logits=rows, order=st.permutations(range(4)))
def test_the_order_of_the_classes_does_not_count(kind: type, logits: Tensor, order: list[int]) -> None:
    torch.testing.assert_close(score(kind(), logits[:, order]), score(kind(), logits), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", [MSP, NonMaximalEntropy, ODIN])
@settings(max_examples=25, deadline=None)
@given(logits=rows, shift=st.floats(-50, 50))
def test_a_shift_of_all_logits_does_not_count(kind: type, logits: Tensor, shift: float) -> None:
    torch.testing.assert_close(score(kind(), logits + shift), score(kind(), logits), rtol=1e-6, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(logits=rows, cold=st.floats(0.1, 100), factor=st.floats(1.01, 10))
def test_monotone_in_the_temperature(logits: Tensor, cold: float, factor: float) -> None:
    # T logsumexp(o / T) grows with T; and heat makes the largest probability smaller
    assert score(Energy(cold * factor), logits) <= score(Energy(cold), logits) + 1e-9
    assert score(ODIN(cold * factor), logits) >= score(ODIN(cold), logits) - 1e-9


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5)).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), self(x)


@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_odin_input_equals_pytorch_ood(temperature: float) -> None:
    model, x = Linear(), 0.2 + 0.6 * torch.rand(20, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        scores = ready(ODINInput(temperature, eps=0.03)).score(View.from_model(model, x))
    expected = ReferenceODIN(model, eps=0.03, temperature=temperature).predict(x)
    close(scores, torch.log1p(expected), rtol=1e-8)
    assert all(p.grad is None for p in model.parameters())


def test_odin_input_stays_within_the_image_range() -> None:
    seen = []

    class Seeing(Linear):
        def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
            seen.append((float(x.detach().min()), float(x.detach().max())))
            return super().embed_and_logits(x)

    x = torch.rand(8, 1, 4, 4, dtype=torch.float64).round()
    ready(ODINInput(eps=0.3)).score(View.from_model(Seeing(), x))
    assert len(seen) == 3 and all(0 <= low <= high <= 1 for low, high in seen)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(Energy, {"temperature": 0}), (Energy, {"temperature": float("inf")}), (ODIN, {"temperature": -1.0}),
     (ODINInput, {"eps": 0}), (ODINInput, {"eps": True})],
)  # fmt: skip
def test_hyper_parameters_are_checked(kind: type, wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)


def test_a_class_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one class each in 0\.\.4"):
        ready(MSP()).score_as(view(LOGITS[:1]), torch.tensor([5]))
