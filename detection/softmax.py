"""Maximum softmax probability (Hendrycks & Gimpel 2017)."""

from __future__ import annotations

from torch import Tensor

from detection.logit_score import LogitScore, log_rest


class MSP(LogitScore):
    """Score = log(1 - p), p the softmax probability of the predicted class.

    Ranks images as -p does, but without ties. The softmax of a trained network is 1 even in float64 from a margin of
    37 on; `pytorch_ood.detector.MaxSoftmax` then gives many images the score -1, which neither a threshold nor a
    gradient tells apart. See `detection.logit_score.log_rest`.

    References
    ----------
    Hendrycks & Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks,
    ICLR 2017, section 2.
    """

    def _of(self, logits: Tensor, classes: Tensor) -> Tensor:
        return log_rest(logits, classes)
