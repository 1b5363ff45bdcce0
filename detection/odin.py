"""Softmax at a high temperature, without and with a step on the image (ODIN, Liang et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from detection.features import View
from detection.learner import positive
from detection.logit_score import LogitScore, log_rest


class ODIN(LogitScore):
    """Score = log(1 - p(T)), p(T) the softmax probability of the predicted class at temperature T.

    p_i(T) = exp(o_i / T) / sum_j exp(o_j / T)

    Ranks images as -p(T) does, but without ties at any temperature: see `detection.logit_score.log_rest`.

    Parameters
    ----------
    temperature : float
        T > 0; 1 gives `MSP`.

    Raises
    ------
    ValueError
        For a temperature outside this range.

    References
    ----------
    Liang, Li & Srikant, Enhancing the Reliability of Out-of-distribution Image Detection in Neural Networks,
    ICLR 2018, equation 1. The temperature alone: see `ODINInput`.
    """

    def __init__(self, temperature: float = 1000.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def _of(self, logits: Tensor, classes: Tensor) -> Tensor:
        return log_rest(logits / self.temperature, classes)


class ODINInput(ODIN):
    """`ODIN` on images that take a step towards their predicted class c first.

    x' = x + eps sign(grad_x log p_c(x; T)), kept in [0, 1]

    The paper's images have no bounds; a classifier here takes those in [0, 1].

    Parameters
    ----------
    temperature : float
        T > 0.
    eps : float
        > 0, the step in units of the pixel range.

    Raises
    ------
    ValueError
        For parameters outside these ranges.

    References
    ----------
    As `ODIN`, equation 2.
    """

    needs_images = True
    # the step's sign has no gradient, and what is left would belong to the image after the step
    differentiable = False

    def __init__(self, temperature: float = 1000.0, eps: float = 0.0014) -> None:
        super().__init__(temperature)
        self.eps = positive("eps", eps)

    def score(self, view: View) -> Tensor:
        """Score each row after its step, as the class that is predicted then: (N,) float64."""
        seen = self._after(view, view.predicted)
        return super().score_as(seen, seen.predicted)

    def score_as(self, view: View, classes: Tensor) -> Tensor:
        """Score each row after a step towards the class given, (N,) int64, as that class."""
        return super().score_as(self._after(view, classes), classes)

    def _after(self, view: View, classes: Tensor) -> View:
        """The view of the images after their step, without a gradient."""
        _ = self._count  # an unfitted one says so before the work
        with torch.enable_grad():
            leaf = view.x.detach().clone().requires_grad_(True)
            rest = super().score_as(view.at(leaf), classes)
            # log p = log(1 - exp(rest)) rises where rest falls: the sign is the same, without its saturation;
            # only the images' gradient is asked for, so the model's parameters gather none
            (slope,) = torch.autograd.grad(rest.sum(), leaf)
        with torch.no_grad():
            after = view.at((leaf - self.eps * slope.sign()).clamp_(0, 1))
            _ = after.logits  # the one pass, while no graph is kept
        return after
