"""Softmax cross-entropy."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from pdm_lightning.losses.base import Outputs, Term


class CrossEntropy(Term):
    """Softmax cross-entropy on the raw logits, ``-log_softmax(o)_y``; read out with argmax(o).

    The mean over the batch of each branch; on pairs, the sum of the two branches (the paper's Algorithm 1).
    """

    readout: ClassVar[str | None] = "direct"

    def forward(self, out: Outputs) -> Tensor:
        """Compute the term, a scalar >= 0."""
        terms = [F.cross_entropy(logits, labels) for _, logits, labels in out.branches()]
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]
