"""What counts as the best image of an example, against detectors that say strange things too."""

from __future__ import annotations

import math

import pytest
import torch

from attacks import Task
from attacks.joint import Best

Offer = tuple[float, float, bool, bool]
"""Margin, score, misclassified, and unflagged as well."""

CLOSE, CLOSER = (-2.0, 1.0, False, False), (-1.0, 9.0, False, False)
TIED = (0.0, -5.0, False, False)  # two equal logits, of which argmax takes the label
LOUD, BROKEN, FLAGGED, CALMER = ((1.0, score, True, False) for score in (math.inf, math.nan, 5.0, 4.0))
SILENT, MORE_SILENT = (1.0, 3.0, True, True), (1.0, 2.0, True, True)


def kept(*offers: Offer) -> int:
    """Which of these images, shown one after the other, is kept."""
    x = torch.zeros(1, 1, 1, 1)
    row = torch.zeros(1, dtype=torch.int64)
    best = Best(Task(lambda x: x, x, row, None, row, 0, lambda *a, **k: None, lambda: x))
    for number, (lead, score, wrong, hit) in enumerate(offers):
        values = torch.tensor([[lead], [score]], dtype=torch.float64)
        best.offer(row, x + number, *values, torch.tensor([wrong]), torch.tensor([hit]))
    return int(best.x_adv)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (CLOSE, CLOSER),
        (CLOSER, TIED),
        (CLOSER, LOUD),
        (CLOSER, BROKEN),
        (TIED, FLAGGED),
        (TIED, LOUD),
        (LOUD, FLAGGED),
        (BROKEN, FLAGGED),
        (FLAGGED, CALMER),
        (CALMER, SILENT),
        (LOUD, SILENT),
        (SILENT, MORE_SILENT),
    ],
)
def test_order(worse: Offer, better: Offer) -> None:
    """Success, then misclassified, then the rest, in whatever order they are shown."""
    assert kept(worse, better) == 1
    assert kept(better, worse) == 0
