"""Reverse cross-entropy (RCE), section 3.3 of the paper, after Pang et al. 2018."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from pdm_lightning.losses.base import Outputs, Term


class ReverseCrossEntropy(Term):
    """Cross-entropy against the reverse label, uniform over the K-1 wrong classes.

    ``-1/(K-1) * sum_{j != y} log_softmax(o)_j``, the mean over the batch of each branch; on pairs, the sum of
    the two branches (Algorithm 1). It trains the *smallest* raw logit onto the true class, so the classifier
    that it trains has to read out -o (``readout: reverse``).
    """

    readout: ClassVar[str | None] = "reverse"

    def floor(self, num_classes: int) -> float:
        """Give the entropy of the reverse label, ln(K-1): the value of a perfect branch."""
        return math.log(num_classes - 1)

    def forward(self, out: Outputs) -> Tensor:
        """Compute the term, a scalar >= ln(K-1) a branch.

        Raises
        ------
        ValueError
            If there are fewer than two classes.
        """
        if out.logits.shape[1] < 2:
            raise ValueError("reverse cross-entropy needs at least two classes: use data with more classes")
        terms = [_branch(logits, labels) for _, logits, labels in out.branches()]
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _branch(logits: Tensor, labels: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, dim=1)
    # summing over j != y by a mask, not as "all minus own": own may be -1e4 and would cancel digits
    wrong = log_p.masked_fill(F.one_hot(labels, logits.shape[1]).bool(), 0.0)
    return -wrong.sum() / (len(labels) * (logits.shape[1] - 1))
