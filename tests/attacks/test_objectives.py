"""What attacks climb, against hand-computed values."""

from __future__ import annotations

import pytest
import torch

from attacks.objectives import LOSSES, ascent, dlr, margin

LOGITS = torch.tensor([[1.0, 4.0, 2.0, -1.0], [5.0, 0.0, 3.0, 1.0]], dtype=torch.float64)


def test_dlr_by_hand() -> None:
    """Sorted 4 2 1 -1 and 5 3 1 0: label 1 leads by 2 over 4 - 1; label 2 trails by 2, over 5 - 1."""
    assert dlr(LOGITS, torch.tensor([1, 2])).tolist() == pytest.approx([-2 / 3, 2 / 4])


def test_targeted_dlr_by_hand() -> None:
    """(o_t - o_y) / (o_(1) - (o_(3) + o_(4)) / 2): (2 - 4) / (4 - 0) and (1 - 5) / (5 - 0.5)."""
    found = dlr(LOGITS, torch.tensor([1, 0]), torch.tensor([2, 3]))
    assert found.tolist() == pytest.approx([-2 / 4, -4 / 4.5])


def test_dlr_knows_no_scale_and_no_shift() -> None:
    y, target = torch.tensor([1, 0]), torch.tensor([2, 3])
    for goal in (None, target):
        assert torch.allclose(dlr(1e4 * LOGITS - 7, y, goal), dlr(LOGITS, y, goal))


def test_dlr_has_the_sign_of_the_margin() -> None:
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(200) % 5
    assert torch.equal(dlr(logits, y) > 0, margin(logits, y) > 0)


def test_dlr_of_equal_logits_is_finite() -> None:
    logits = torch.zeros(1, 4, requires_grad=True)
    value = dlr(logits, torch.tensor([0]))
    assert value.item() == 0
    assert torch.isfinite(torch.autograd.grad(value.sum(), logits)[0]).all()


def test_dlr_refuses_too_few_classes() -> None:
    with pytest.raises(
        ValueError, match=r"dlr needs at least 3 classes when untargeted, the target has 2: use"
    ):
        dlr(torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(
        ValueError, match=r"at least 4 classes when targeted, the target has 3: use loss=margin"
    ):
        dlr(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([1]))


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_rise_towards_the_goal(loss: str) -> None:
    """Raising the best wrong logit, or the target's, raises every loss."""
    y, target = torch.tensor([1, 0]), torch.tensor([2, 3])
    for goal, favoured in ((None, torch.tensor([2, 2])), (target, target)):
        raised = LOGITS + 0.1 * torch.eye(4, dtype=torch.float64)[favoured]
        assert (ascent(loss, raised, y, goal) > ascent(loss, LOGITS, y, goal)).all()
