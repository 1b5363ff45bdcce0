"""Knowledge distillation, after Hinton, Vinyals and Dean 2015 ("Distilling the Knowledge in a Neural Network")."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from pdm_lightning.losses.base import Outputs, Term

LABELS = ("soft", "hard")
"""What a teacher answers: its readout probabilities, or its predicted class alone."""


class Distillation(Term):
    """Cross-entropy of the raw logits o against the answers of a teacher with readout logits o_t.

    Soft: ``T^2 * -sum_j softmax(o_t / T)_j log_softmax(o / T)_j``; the factor keeps the gradient's size, which
    falls as 1/T^2 (section 2.1 of Hinton et al.). Hard: ``-log_softmax(o)_{argmax o_t}``. The mean over the
    batch of each branch; on pairs, the sum of the two branches. The data's own labels play no part.

    Parameters
    ----------
    labels
        Out of `LABELS`.
    temperature
        T > 0, for soft labels alone.

    Raises
    ------
    ValueError
        If the labels are unknown, or the temperature is not positive, or not 1 with hard labels.
    """

    readout: ClassVar[str | None] = "direct"

    def __init__(self, labels: str = "soft", temperature: float = 1.0) -> None:
        super().__init__()
        if labels not in LABELS:
            raise ValueError(f"labels {labels!r} of a distillation are unknown: choose {' or '.join(LABELS)}")
        if not (isinstance(temperature, int | float) and math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature {temperature} is not a finite number above 0: choose e.g. 1")
        if labels == "hard" and temperature != 1:
            raise ValueError(f"temperature {temperature} does nothing to hard labels: set 1, or labels soft")
        self.labels, self.temperature = labels, temperature

    def forward(self, out: Outputs) -> Tensor:
        """Compute the term, a scalar >= 0.

        Raises
        ------
        ValueError
            If there is no teacher.
        """
        if out.teacher is None:
            raise ValueError("a distillation learns from a teacher, and there is none: train with one")
        t = self.temperature
        answers = out.teacher.argmax(dim=1) if self.labels == "hard" else (out.teacher / t).softmax(dim=1)
        # the branches of pairs are of one size: the sum of their means is twice the mean of all
        return t**2 * len(out.branches()) * F.cross_entropy(out.logits / t, answers)
