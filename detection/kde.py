"""Kernel density detector (Feinman et al. 2017) on the embedding of the predicted class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from detection import bandwidth as rules
from detection import mapped
from detection.base import Detector
from detection.density import Densities
from detection.features import Features, View
from detection.finite import check_finite
from detection.learner import every_class
from detection.streamed import StreamedDensities

PREPARED = 2**27
"""Numbers of the kernels, all classes together, up to which they are kept ready in float64: 1 GiB."""
RULES = ("validation", "loo", "nn_median")


class KDE(Detector):
    """Score = -log density of the embedding under the training embeddings of its *predicted* class.

    Each class has at most `kernels_per_class` isotropic Gaussian kernels: training embeddings of that *true*
    class, drawn at random without replacement. One bandwidth serves all classes. Everything is float64 and in
    log space, so neither the score nor its gradient vanishes far from every kernel.

    Kernels keep the features' own numbers (float32 as a rule), which float64 holds exactly. Up to `PREPARED` numbers
    they are made ready once and kept in float64, where the points are. More of them stay where they are, in a file that
    `detection.mapped.load` maps for example, and are made ready class by class in some 100 MB, which costs least with
    many points at a time. The scores are the same but for rounding.

    Parameters
    ----------
    bandwidth : {"validation", "loo", "nn_median"} or float
        Rule (see `detection.bandwidth`) or a number > 0 in units of the embedding.
    kernels_per_class : int
        Kernels per class; a class with fewer training images gives all of them.
    layer : str
        The layer whose density is estimated: "embedding", "logits" or the name of a submodule.
    bandwidth_scale : float
        > 0, multiplies the bandwidth that rule or number give: for sweeps around a rule.
    seed : int
        Seed of the draw; class c's kernels depend on (seed, c) alone.

    Attributes
    ----------
    bandwidth_ : float
        The bandwidth in use, after `fit` or `load_state_dict`.

    Raises
    ------
    ValueError
        For hyper-parameters outside these ranges.
    """

    differentiable = True
    kernels_are = "kernels"
    """Their name in `state_dict`: what a subclass keeps elsewhere has another one."""

    def __init__(
        self,
        bandwidth: str | float = "validation",
        kernels_per_class: int = 1000,
        layer: str = "embedding",
        bandwidth_scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        is_number = isinstance(bandwidth, int | float) and not isinstance(bandwidth, bool)
        if not (bandwidth in RULES or (is_number and 0 < float(bandwidth) < math.inf)):
            raise ValueError(
                f"bandwidth must be one of {', '.join(RULES)} or a number above 0, got {bandwidth!r}"
            )
        if not 0 < bandwidth_scale < math.inf:
            raise ValueError(f"bandwidth_scale must be a number above 0, got {bandwidth_scale!r}")
        if kernels_per_class < 1:
            raise ValueError(f"kernels_per_class must be at least 1, got {kernels_per_class}")
        if not layer or not isinstance(layer, str):
            raise ValueError(f"layer must be the name of a layer, got {layer!r}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.bandwidth, self.bandwidth_scale = bandwidth, bandwidth_scale
        self.kernels_per_class, self.layer, self.seed = kernels_per_class, layer, seed
        self.bandwidth_ = math.nan
        self._kernels: Sequence[Tensor] = ()
        self._all = torch.empty(0, 0)
        self._densities: Densities | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The one layer, and the logits for the predicted class."""
        return (self.layer, "logits")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(bandwidth={self.bandwidth!r}, kernels_per_class={self.kernels_per_class}, "
            f"layer={self.layer!r}, bandwidth_scale={self.bandwidth_scale}, seed={self.seed})"
        )

    def fit(self, train: Features, validation: Features, adversarial: Features | None = None) -> Self:
        """Draw the kernels from `train` and choose the bandwidth.

        Parameters
        ----------
        train, validation : Features
            Clean features with true labels; `validation` is read by the rule "validation" alone.
        adversarial : Features, optional
            Not read.

        Returns
        -------
        KDE
            Itself, fitted.

        Raises
        ------
        ValueError
            Where a class has no training embedding, an embedding is not finite, the two sets disagree, or
            the rule finds no bandwidth.
        """
        points = train.layer(self.layer).detach()
        check_finite(points, "training")
        groups = every_class(train.labels, train.num_classes, "KDE")
        drawn = [self._draw(rows, c) for c, rows in enumerate(groups)]
        kernels = self._gather(points, drawn)
        parts = kernels.split([len(rows) for rows in drawn])
        self.bandwidth_ = self.bandwidth_scale * self._choose_bandwidth(parts, validation)
        self._all, self._kernels, self._densities = kernels, parts, None
        return self

    def _placed(self, points: Tensor) -> Tensor:
        """Where embeddings (n, d) in float64 stand."""
        return points

    def _gather(self, points: Tensor, groups: Sequence[Tensor]) -> Tensor:
        """Rows of embeddings, group after group, where they stand: kernels are kept like that."""
        return mapped.gather(points, groups)

    def _draw(self, rows: Tensor, label: int) -> Tensor:
        count = min(self.kernels_per_class, len(rows))
        chosen = np.random.default_rng([self.seed, label]).choice(len(rows), count, replace=False)
        return rows[torch.from_numpy(np.sort(chosen)).to(rows.device)]

    def _choose_bandwidth(self, kernels: Sequence[Tensor], validation: Features) -> float:
        if self.bandwidth == "loo":
            return rules.leave_one_out(kernels)
        if self.bandwidth == "nn_median":
            return rules.nearest_neighbour_median(kernels)
        if self.bandwidth == "validation":
            points = validation.layer(self.layer).detach()
            check_finite(points, "validation")
            if points.shape[1] != kernels[0].shape[1] or validation.num_classes != len(kernels):
                raise ValueError("KDE: training and validation features come from different models")
            groups = [(validation.labels == c).nonzero().flatten() for c in range(len(kernels))]
            return rules.by_validation(kernels, self._gather(points, groups).split([len(g) for g in groups]))
        return float(self.bandwidth)

    def score(self, view: View) -> Tensor:
        """Score each row: (N,) float64, -log density under the predicted class; the gradient flows back."""
        return self.score_as(view, view.predicted)

    def score_as(self, view: View, classes: Tensor) -> Tensor:
        """Score each row under the kernels of the class given for it: (N,) float64, -log density."""
        return -self.log_density(view.layer(self.layer), classes)

    def leave_one_out_scores(self) -> list[Tensor]:
        """Score each kernel's centre under the other kernels of its class.

        Returns
        -------
        list of Tensor
            Per class (M_c,) float64, -log density, in the order of `state_dict`.

        Raises
        ------
        RuntimeError
            Before `fit` or `load_state_dict`.
        ValueError
            Where a class has one kernel alone: nothing is left to score it with.
        """
        densities = self._ready()
        alone = [str(c) for c, kernels in enumerate(self._kernels) if len(kernels) < 2]
        if alone:
            raise ValueError(
                f"KDE: class {', '.join(alone)} has one kernel, and none is left once it is left out: "
                "raise kernels_per_class, or use craft.limits=validation"
            )
        return [-densities.leave_one_out(label) for label in range(len(self._kernels))]

    def log_density(self, points: Tensor, classes: Tensor) -> Tensor:
        """Log density of each point under the kernels of a class given for it.

        Parameters
        ----------
        points : Tensor
            (N, d) of the detector's layer, any float dtype and device.
        classes : Tensor
            (N,) int64, the class whose kernels count.

        Returns
        -------
        Tensor
            (N,) float64 on the points' device.

        Raises
        ------
        RuntimeError
            Before `fit` or `load_state_dict`.
        ValueError
            For points of another dimension, points that are not finite, or a class without kernels.
        """
        densities = self._ready(points.device)
        self._check(points, classes)
        return densities(self._placed(_finite(points, "scored")), classes)

    def _ready(self, device: torch.device | None = None) -> Densities:
        """What a query needs, made once and kept: an attack scores on its device thousands of times."""
        self._check_fitted()
        device = self._all.device if device is None else device
        if self._densities is None or self._densities.device != device:
            if self._all.numel() > PREPARED:
                self._densities = StreamedDensities(self._kernels, self.bandwidth_, device)
            else:
                self._all = self._all.to(device)
                self._kernels = self._all.split([len(k) for k in self._kernels])
                self._densities = Densities(self._kernels, self.bandwidth_)
        return self._densities

    def _check_fitted(self) -> None:
        if not self._kernels:
            raise RuntimeError("this KDE has no kernels yet: call fit or load_state_dict first")

    def _check(self, points: Tensor, classes: Tensor) -> None:
        dim = self._kernels[0].shape[1]
        if points.dim() != 2 or points.shape[1] != dim or classes.shape != points.shape[:1]:
            raise ValueError(
                f"KDE: points must be (N, {dim}) with one class each, "
                f"got {tuple(points.shape)} and {tuple(classes.shape)}"
            )
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < len(self._kernels):
            raise ValueError(
                f"KDE: classes must lie in 0..{len(self._kernels) - 1}, "
                f"found {int(classes.min())}..{int(classes.max())}"
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Kernels (M, d) as `fit` keeps them, their classes (M,) int64 and the bandwidth (1,) float64, on the CPU.

        Kernels that lie in a file are given as they are, unread: write them with `detection.mapped.save`, and write not
        into them.
        """
        self._check_fitted()
        counts = torch.tensor([len(k) for k in self._kernels])
        return {
            self.kernels_are: self._all if mapped.is_mapped(self._all) else self._all.cpu().clone(),
            "classes": torch.arange(len(counts)).repeat_interleave(counts),
            "bandwidth": torch.tensor([self.bandwidth_], dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> Self:
        """Take over kernels and bandwidth of `state_dict`, the kernels without a copy.

        Raises
        ------
        ValueError
            Where one of them is absent, or they do not belong together.
        """
        name = type(self).__name__
        missing = {self.kernels_are, "classes", "bandwidth"} - state.keys()
        if missing:
            raise ValueError(
                f"this is no {name} state, {', '.join(sorted(missing))} absent: fit the detector again"
            )
        kernels, classes = state[self.kernels_are], state["classes"]
        if kernels.dim() != 2 or not kernels.is_floating_point() or classes.shape != kernels.shape[:1]:
            raise ValueError(
                f"this is no {name} state, kernels {tuple(kernels.shape)} {kernels.dtype} with classes "
                f"{tuple(classes.shape)}: fit the detector again"
            )
        # in any other order kernels would go to the wrong classes
        labels, counts = classes.unique_consecutive(return_counts=True)
        if not torch.equal(labels, torch.arange(len(labels))):
            raise ValueError(
                f"this is no {name} state, classes must be 0, 1, ... in turn: fit the detector again"
            )
        self._all, self._kernels = kernels, kernels.split(counts.tolist())
        self.bandwidth_, self._densities = float(state["bandwidth"]), None
        return self


def _finite(points: Tensor, which: str) -> Tensor:
    """Cast to float64 (autograd casts the gradient back), refusing NaN and infinities."""
    check_finite(points.detach(), which)
    return points.double()
