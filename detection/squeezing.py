"""Feature squeezing (Xu et al. 2018): does the prediction survive a simpler image?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from detection.features import View
from detection.learner import positive, whole
from detection.logit_score import ClassCount
from detection.squeezers import median, non_local_means, reduce_bits


class FeatureSqueezing(ClassCount):
    """Score = the largest L1 distance between the softmax of an image and that of its squeezed versions.

    score(x) = max_s ||softmax(f(x)) - softmax(f(s(x)))||_1, in [0, 2]

    Rounding has no gradient, so neither has the score. One pass of the classifier for each squeezer.

    Parameters
    ----------
    bits : int, optional
        Bits a pixel keeps, 1 to 8 (the paper: 1 for MNIST, 5 for CIFAR-10); None leaves this squeezer out.
    medians : sequence of int
        Sides of median windows in pixels, >= 2 each, a squeezer each (the paper: 2); may be empty.
    non_local : sequence, optional
        Search window and patch in pixels (odd) and strength > 0 in levels of 256, see
        `detection.squeezers.non_local_means` (the paper: 13, 3, 2 for CIFAR-10); None leaves this squeezer out.

    Raises
    ------
    ValueError
        For parameters outside these ranges, or no squeezer at all.

    References
    ----------
    Xu, Evans & Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks, NDSS 2018, sections
    III and V.
    """

    needs_images = True
    differentiable = False

    def __init__(
        self,
        bits: int | None = 1,
        medians: Sequence[int] = (2,),
        non_local: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if bits is not None and whole("bits", bits, 1) > 8:
            raise ValueError(f"bits must be at most 8, got {bits}")
        self.bits, self.medians = bits, [whole("medians", window, 2) for window in medians]
        self.non_local = None if non_local is None else _checked(non_local)
        if not self._squeezers():
            raise ValueError("bits, medians and non_local are all empty: give one squeezer at least")

    def _squeezers(self) -> list[Callable[[Tensor], Tensor]]:
        found: list[Callable[[Tensor], Tensor]] = [partial(median, window=window) for window in self.medians]
        if self.bits is not None:
            found.append(partial(reduce_bits, bits=self.bits))
        if self.non_local is not None:
            search, patch, strength = self.non_local
            found.append(partial(non_local_means, search=int(search), patch=int(patch), strength=strength))
        return found

    def score(self, view: View) -> Tensor:
        """Score each row: (N,) float64; ValueError for a view without images."""
        # outside no_grad: the view keeps these logits, and an attack wants their gradient
        own = self._layer(view, "logits", "scored", self._count).detach().softmax(dim=1)
        with torch.no_grad():
            apart = [own - self._softmax(view, squeeze) for squeeze in self._squeezers()]
        return torch.stack([gap.abs().sum(dim=1) for gap in apart]).amax(dim=0)

    def _softmax(self, view: View, squeeze: Callable[[Tensor], Tensor]) -> Tensor:
        return self._layer(view.at(squeeze(view.x)), "logits", "squeezed", self._count).softmax(dim=1)


def _checked(non_local: Sequence[float]) -> list[float]:
    values = list(non_local)
    if len(values) != 3 or any(whole("non_local", v, 1) % 2 == 0 for v in values[:2]):  # type: ignore[arg-type]
        raise ValueError(f"non_local must be [odd search window, odd patch, strength], got {values}")
    return [*values[:2], positive("non_local strength", values[2])]
