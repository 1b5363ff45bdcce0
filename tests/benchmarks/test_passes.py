"""The count of passes against counts by hand, and against what our attacks say of themselves."""

from __future__ import annotations

from typing import Any

import torch

from attacks import BIM, CarliniWagner, prepare
from benchmarks.passes import counted


def test_by_hand(toys: Any) -> None:
    model, x = toys.linear(), toys.subject().x
    with counted([model]) as passes:
        with torch.no_grad():
            model(x)
        assert (passes.forwards, passes.backwards) == (4, 0)
        leaf = x[:3].clone().requires_grad_()
        logits = model(leaf)
        torch.autograd.grad(logits[:, 0].sum(), leaf, retain_graph=True)
        torch.autograd.grad(logits[:, 1].sum(), leaf)
        assert (passes.forwards, passes.backwards) == (7, 6)
    model(x)
    assert passes.forwards == 7
    assert not model._forward_hooks


def test_of_our_attacks(toys: Any) -> None:
    held = toys.subject()
    with counted([held.model]) as passes:
        result = BIM(eps=0.1, iterations=7)(held.model, held.x, held.y)
    assert passes.backwards == int(result.passes.sum()) == 28
    with counted([held.model]) as passes:
        result = CarliniWagner(max_iterations=20, binary_search_steps=3)(held.model, held.x, held.y)
    assert passes.backwards == int(result.passes.sum())
    assert passes.forwards > passes.backwards


def test_through_a_prepared_copy(toys: Any) -> None:
    held = toys.subject()
    target = prepare(held.model, held.x)
    with counted([held.model, target.module]) as passes:
        result = BIM(eps=0.1, iterations=7)(target, held.x, held.y)
    assert passes.backwards == int(result.passes.sum()) == 28
