"""Embeddings that are not finite are refused, a block at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from detection import mapped


def check_finite(points: Tensor, which: str) -> None:
    """Refuse NaN and infinities among embeddings (N, d), which may be mapped from a file; ValueError for any."""
    # a sum is cheap, and finite only without NaN or infinity; it may overflow, hence the count
    bad = sum(
        0 if torch.isfinite(part.sum()) else int((~torch.isfinite(part)).any(dim=1).sum())
        for part in mapped.blocks(points)
    )
    if bad:
        raise ValueError(
            f"KDE: {bad} of {len(points)} {which} embeddings are not finite: "
            "the model has diverged, train it again"
        )
