"""Losses of gradients against closed forms of linear and quadratic models, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from pdm_lightning.losses import CombinedLoss, InputGradient, Jacobian, LargeMargin, Outputs, Term, look
from pdm_lightning.models import Classifier, ResNet


def linear(readout: str = "direct", seed: int = 0) -> Classifier:
    """Pixels are the embedding: o = W x + b for x in [0, 1]."""
    torch.manual_seed(seed)
    made = Classifier(nn.Flatten(), 4, 3, readout=readout, mean=0.0, std=1.0).double()
    nn.init.normal_(made.head.bias)
    return made


def seen(classifier: Classifier, x: Tensor, y: Tensor, term: Term, same: Tensor | None = None) -> Outputs:
    """What the module shows a loss."""
    found = look(classifier, x, term.taps, term.places)
    read = classifier.read(found.logits)
    return Outputs(
        found.embeddings, found.logits, y, same, readout=read, layers=found.layers, places=found.places
    )


def images(n: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 2, 2, generator=draws, dtype=torch.float64)
    return x, torch.arange(n) % 3


SIGN = {"direct": 1.0, "reverse": -1.0}


@pytest.mark.parametrize("readout", SIGN)
@pytest.mark.parametrize("squared", [True, False])
def test_input_gradient_of_a_linear_model_is_known(readout: str, squared: bool) -> None:
    net, (x, y) = linear(readout), images()
    w = SIGN[readout] * net.head.weight
    p = (x.flatten(1) @ w.T + SIGN[readout] * net.head.bias).softmax(dim=1)
    # d CE / dx = W^T (p - onehot)
    squares = ((p - F.one_hot(y, 3)) @ w).square().sum(dim=1)
    expected = (squares if squared else squares.sqrt()).mean()
    term = InputGradient(squared)
    assert term(seen(net, x, y, term)).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("of", ["embedding", "logits"])
@pytest.mark.parametrize("squared", [True, False])
def test_the_exact_jacobian_of_a_linear_model_is_its_matrix(of: str, squared: bool) -> None:
    net, (x, y) = linear(), images()
    norm = 4.0 if of == "embedding" else net.head.weight.square().sum().item()
    term = Jacobian(of, "exact", squared)
    expected = norm if squared else math.sqrt(norm)
    assert term(seen(net, x, y, term)).item() == pytest.approx(expected, rel=1e-12)


def test_the_exact_jacobian_of_a_curved_network_is_that_of_autograd() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    net, (x, y) = Classifier(body, 3, 3).double(), images()
    for of, number in (("embedding", 0), ("logits", 1)):
        whole = [
            torch.autograd.functional.jacobian(lambda one, n=number: net.embed_and_raw(one)[n], row[None])
            for row in x
        ]
        expected = sum(part.square().sum().item() for part in whole) / len(x)
        term = Jacobian(of, "exact")
        assert term(seen(net, x, y, term)).item() == pytest.approx(expected, rel=1e-10)


def test_projections_have_the_exact_norm_for_a_mean() -> None:
    """Of v uniform on the sphere in C dimensions, C |v^T J|^2 has the mean ||J||^2; 4000 draws leave 2 or 3 %."""
    net, (x, y) = linear(), images(4)
    exact = net.head.weight.square().sum().item()
    term = Jacobian("logits", 1000)
    torch.manual_seed(0)
    drawn = [term(seen(net, x, y, term)).item() for _ in range(4)]
    assert sum(drawn) / 4 == pytest.approx(exact, rel=0.03)
    assert len(set(drawn)) == 4


def test_a_projection_of_a_multiple_of_an_isometry_is_exact() -> None:
    """There |v^T J| is the same for every unit vector, so one random direction tells all."""
    net, (x, y) = linear(), images()
    net.head.weight.data = 3 * torch.eye(3, 4, dtype=torch.float64)
    term = Jacobian("logits", 1)
    assert term(seen(net, x, y, term)).item() == pytest.approx(27, rel=1e-12)


def test_projections_follow_from_the_seed() -> None:
    net, (x, y) = linear(), images()
    term = Jacobian("logits", 2)

    def value(seed: int) -> float:
        torch.manual_seed(seed)
        return term(seen(net, x, y, term)).item()

    assert value(3) == value(3) != value(4)


DUAL = {1: math.inf, 2: 2, "inf": 1}


@pytest.mark.parametrize("readout", SIGN)
@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("aggregate", ["sum", "max"])
@pytest.mark.parametrize("place", ["input", "embedding"])
def test_the_margin_of_a_linear_model_is_the_distance_to_its_planes(
    readout: str, norm: int | str, aggregate: str, place: str
) -> None:
    net, (x, y) = linear(readout), images()
    w, b = (SIGN[readout] * part.detach() for part in (net.head.weight, net.head.bias))
    expected = []
    for row, label in zip(x.flatten(1), y.tolist(), strict=True):
        hinges = []
        for j in {0, 1, 2} - {label}:
            plane, offset = w[label] - w[j], b[label] - b[j]
            # signed distance of a point to a hyperplane in the norm p is taken by the dual norm of its normal
            distance = (plane @ row + offset) / torch.linalg.vector_norm(plane, DUAL[norm])
            hinges.append(max(0.0, 0.7 - distance.item()))
        expected.append(sum(hinges) if aggregate == "sum" else max(hinges))
    term = LargeMargin({place: 1.0}, 0.7, norm, aggregate=aggregate, eps=0.0)
    found = term(seen(net, x, y, term)).item()
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-10)
    assert found > 0


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_the_distance_in_two_dimensions_is_reached_by_a_step_of_its_length(seed: int) -> None:
    """Independent of any formula: the nearest of many points where two logits tie is as far as the margin says."""
    net, (x, _) = linear(seed=seed), images(1, seed)
    y = net(x).argmax(dim=1)
    term = LargeMargin({"input": 1.0}, gamma=1e4, top_k=1, eps=0.0)
    distance = 1e4 - term(seen(net, x, y, term)).item()
    rival = int(net(x)[0].topk(2).indices[1])
    normal = net.head.weight[rival] - net.head.weight[y[0]]
    moved = x + (distance * normal / normal.norm()).reshape(x.shape)
    logits = net(moved)[0]
    assert logits[rival].item() == pytest.approx(logits[y[0]].item(), abs=1e-6)


def test_top_k_counts_the_largest_wrong_logits() -> None:
    net, (x, y) = linear(), images()
    every, one = (LargeMargin(gamma=50.0, top_k=k, eps=0.0) for k in (None, 1))
    o = net(x)
    expected = []
    for row, label in zip(range(len(x)), y.tolist(), strict=True):
        rival = max({0, 1, 2} - {label}, key=lambda j: o[row, j].item())
        gap = o[row, rival] - o[row, label]
        expected.append(50 + (gap / (net.head.weight[rival] - net.head.weight[label]).norm()).item())
    assert one(seen(net, x, y, one)).item() == pytest.approx(sum(expected) / len(x))
    wide = LargeMargin(gamma=50.0, top_k=9, eps=0.0)
    assert wide(seen(net, x, y, wide)).item() == pytest.approx(every(seen(net, x, y, every)).item())


def test_layers_and_margins_are_weighed() -> None:
    net, (x, y) = linear(), images()
    parts = [LargeMargin({place: 1.0}, gamma) for place, gamma in (("input", 2.0), ("embedding", 3.0))]
    both = LargeMargin({"input": 0.25, "embedding": 4.0}, {"input": 2.0, "embedding": 3.0})
    one, two = (part(seen(net, x, y, part)).item() for part in parts)
    assert both(seen(net, x, y, both)).item() == pytest.approx(0.25 * one + 4 * two)
    # the embedding is the image itself: a unit more is asked of the two wrong classes, as far as none is fulfilled
    assert 0 < two - one <= 2


def test_where_the_gradient_vanishes_eps_keeps_the_quotient_finite() -> None:
    net, (x, y) = linear(), images(3)
    nn.init.zeros_(net.head.weight)
    net.head.bias.data = torch.tensor([0.5, 0.0, -0.25], dtype=torch.float64)
    term = LargeMargin(gamma=2.0, eps=0.5)
    # y = 0: 2 - 1, 2 - 1.5; y = 1: 2 + 1, 2 - .5; y = 2: 2 + 1.5, 2 + .5
    assert term(seen(net, x, y, term)).item() == pytest.approx((1.5 + 4.5 + 6.0) / 3, rel=1e-12)


TERMS = [
    InputGradient(),
    InputGradient(squared=False),
    Jacobian("embedding", "exact"),
    Jacobian("logits", 3),
    Jacobian("logits", "exact", squared=False),
    LargeMargin({"input": 1.0}, 3.0, differentiate=True),
    LargeMargin({"backbone.stage2": 1.0, "embedding": 0.5}, 3.0, 2, differentiate=True),
    LargeMargin({"backbone.stem": 1.0}, 3.0, "inf", 1, "max", differentiate=True),
]


def resnet(preact: bool = False) -> Classifier:
    torch.manual_seed(0)
    return Classifier(ResNet(8, 1, [2, 2, 3], preact), 3, 3).double().train()


def batch(n: int = 4) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(5)
    return torch.rand(n, 1, 8, 8, generator=draws, dtype=torch.float64), torch.arange(n) % 3


def closest(term: Term, net: Classifier, parameter: Tensor, index: int, h: float) -> float:
    """Central difference of a term in one weight."""
    values = []
    for step in (h, -h):
        with torch.no_grad():
            parameter.view(-1)[index] += step
        torch.manual_seed(0)
        values.append(term(seen(net, *batch(), term)).item())
        with torch.no_grad():
            parameter.view(-1)[index] -= step
    return (values[0] - values[1]) / (2 * h)


@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_double_backpropagation_through_batch_norm_in_train_mode(term: Term, preact: bool) -> None:
    """Every weight's gradient, activations in place and batch statistics included, is a finite difference's."""
    net = resnet(preact)
    torch.manual_seed(0)
    term(seen(net, *batch(), term)).backward()
    checked = 0
    for name, parameter in net.named_parameters():
        index = parameter.numel() // 2
        slope = 0.0 if parameter.grad is None else parameter.grad.view(-1)[index].item()
        assert slope == pytest.approx(closest(term, net, parameter, index, 1e-6), rel=1e-4, abs=1e-6), name
        checked += slope != 0
    assert checked > 10


def test_the_norm_of_the_gradient_is_a_constant_unless_it_is_differentiated() -> None:
    """Then the slope of (f_j - f_y) / length is that of f_j - f_y alone, over the length."""
    net, (x, y) = linear(), images()
    term = LargeMargin(gamma=50.0, top_k=1, eps=0.0)
    term(seen(net, x, y, term)).backward()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for row, label, o in zip(x.flatten(1), y.tolist(), net(x), strict=True):
        rival = max({0, 1, 2} - {label}, key=lambda j: o[j].item())
        length = (net.head.weight[rival] - net.head.weight[label]).norm().item()
        expected[rival] += row / length / len(x)
        expected[label] -= row / length / len(x)
    torch.testing.assert_close(net.head.weight.grad, expected)


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_on_pairs_it_is_the_sum_of_the_branches(term: Term) -> None:
    net = resnet().eval()
    x, y = batch(6)
    torch.manual_seed(0)
    both = term(seen(net, x, y, term, torch.tensor([True, False, True]))).item()
    torch.manual_seed(0)
    assert both == pytest.approx(2 * term(seen(net, x, y, term)).item(), rel=1e-12)


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_in_eval_mode_values_are_the_same_and_nothing_is_differentiated(term: Term) -> None:
    net, (x, y) = resnet().eval(), batch()
    combined = CombinedLoss({"term": term}, {"term": 1.0})
    values = []
    for training in (True, False):
        combined.train(training)
        torch.manual_seed(0)
        values.append(combined(seen(net, x, y, term))[0])
    combined.train()
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-12)
    assert values[0].requires_grad


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Jacobian("head"), "choose embedding or logits"),
        (lambda: Jacobian(projections=0), "projections 0"),
        (lambda: Jacobian(projections="all"), "projections 'all'"),
        (lambda: LargeMargin(norm=3), "norm 3"),
        (lambda: LargeMargin(gamma=0.0), "gamma 0.0"),
        (lambda: LargeMargin({"input": 1, "embedding": 1}, {"input": 1.0}), "no value for 'embedding'"),
        (lambda: LargeMargin(top_k=0), "top_k 0"),
        (lambda: LargeMargin(aggregate="mean"), "aggregate 'mean'"),
        (lambda: LargeMargin(eps=-1.0), "eps -1.0"),
        (lambda: LargeMargin({"input": -1.0}), "weight -1.0 of 'input'"),
        (lambda: LargeMargin({"input": 0}), "above 0"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(wrong, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        wrong()
    assert "\n" not in str(error.value)
    assert ":" in str(error.value)
