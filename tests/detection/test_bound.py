from __future__ import annotations

import math

import pytest
import torch

from detection import bound, distortion_bound, jacobian_norm, other_class_distance

torch.set_num_threads(1)


def test_other_class_distance_by_hand() -> None:
    points = torch.tensor([[0.0, 0.0], [0.5, 0.0], [3.0, 4.0], [6.0, 8.0]])
    labels = torch.tensor([2, 2, 5, 0])
    expected = torch.tensor([5.0, math.hypot(2.5, 4), math.hypot(2.5, 4), 5.0], dtype=torch.float64)
    torch.testing.assert_close(other_class_distance(points, labels), expected, rtol=1e-12, atol=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3
    whole = other_class_distance(points, labels)
    monkeypatch.setattr(bound, "_BLOCK", 350)  # seven rows a block
    assert torch.equal(other_class_distance(points, labels), whole)


def test_jacobian_of_a_linear_map_is_its_matrix() -> None:
    matrix = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.rand(3, 1, 3, 4, dtype=torch.float64)
    with torch.no_grad():  # the caller's mode does not matter
        norms = jacobian_norm(lambda images: images.flatten(1) @ matrix, x)
    torch.testing.assert_close(norms, matrix.norm().expand(3), rtol=1e-12, atol=1e-12)
    assert not x.requires_grad


def test_jacobian_equals_autograds() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)
    )
    x = torch.rand(5, 1, 2, 3)
    full = [torch.autograd.functional.jacobian(model, image[None]).norm().double() for image in x]
    torch.testing.assert_close(jacobian_norm(model, x), torch.stack(full), rtol=1e-5, atol=1e-6)
    assert all(p.grad is None for p in model.parameters())


def test_bound_by_hand() -> None:
    points, labels = torch.tensor([[0.0], [1.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1])
    result = distortion_bound(points, labels, torch.tensor([1.0, 6.0]), quantile=0.5)
    # nearest points of the other class: 4, 3, 3, 5
    assert (result.eta, result.eta_low, result.mean) == (3.0, 3.5, (3.0 + 0.5) / 2)
    assert result.per_example.tolist() == [3.0, 0.5]


def test_no_linear_attack_is_shorter_than_the_bound() -> None:
    # z = A x: crossing from one class point to another takes at least eta / ||A||
    matrix = torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    x = torch.tensor([[0.1, 0.2], [0.9, 0.4], [0.3, 0.8]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 2])
    norms = jacobian_norm(lambda v: v @ matrix.T, x)
    smallest = torch.pdist(x).min()
    assert distortion_bound(x @ matrix.T, labels, norms).per_example.max() <= smallest


def test_a_single_class_is_refused() -> None:
    with pytest.raises(ValueError, match="two classes"):
        other_class_distance(torch.zeros(3, 2), torch.ones(3).long())
