"""Detectors of pytorch-ood: scores of the logits that hold in float64 and pass the gradient as they are.

pytorch-ood takes two seconds to import, so it is imported where a score is asked for. Its other detectors have their
own code here: they detach what they score (Mahalanobis, RMD, KNN), saturate (MaxSoftmax, ODIN) or clip (Entropy).
"""

from __future__ import annotations

from torch import Tensor

from detection.learner import positive
from detection.logit_score import LogitScore


class MaxLogit(LogitScore):
    """Score = -max_i o_i, the negative largest logit; as a class c, -o_c.

    References
    ----------
    Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022, section 4.
    """

    def _of(self, logits: Tensor, classes: Tensor) -> Tensor:
        from pytorch_ood.detector import MaxLogit as Reference

        score: Tensor = Reference.score(logits.gather(1, classes[:, None]))
        return score


class Energy(LogitScore):
    """Score = -T logsumexp(o / T), the energy of the logits; the same for every class.

    Parameters
    ----------
    temperature : float
        T > 0, in units of the logits; towards 0 the score becomes that of `MaxLogit`.

    Raises
    ------
    ValueError
        For a temperature outside this range.

    References
    ----------
    Liu, Wang, Owens & Li, Energy-based Out-of-distribution Detection, NeurIPS 2020, equation 3.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def _of(self, logits: Tensor, classes: Tensor) -> Tensor:
        from pytorch_ood.detector import EnergyBased

        score: Tensor = EnergyBased.score(logits, t=self.temperature)
        return score
