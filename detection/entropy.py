"""Non-maximal entropy (Pang et al. 2018)."""

from __future__ import annotations

from torch import Tensor

from detection.logit_score import LogitScore, without


class NonMaximalEntropy(LogitScore):
    """Score = -nonME, the negative entropy of the softmax over all classes but the predicted one.

    nonME(x) = -sum_{i != c} F_i log F_i,    F = softmax of the logits without that of the predicted class c

    Reverse cross-entropy teaches a classifier to spread what is left over the other classes, so clean images have a
    *high* non-maximal entropy and adversarial ones a lower one, hence the sign. It is meant for classifiers that
    were trained so (defense=rce and those built on it); after plain cross-entropy the sign need not hold.

    References
    ----------
    Pang, Du, Dong & Zhu, Towards Robust Detection of Adversarial Examples, NeurIPS 2018, definition 1.
    """

    # with two classes one is left, whose entropy is 0 for every image
    least_classes = 3

    def _of(self, logits: Tensor, classes: Tensor) -> Tensor:
        logs = without(logits, classes).log_softmax(dim=1)
        # the class left out has probability 0 and logarithm -inf, whose product would be NaN
        return (logs.exp() * logs.masked_fill(logs.isneginf(), 0.0)).sum(dim=1)
