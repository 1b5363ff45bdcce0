"""The weighted sum of named terms that a defence trains."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from pdm_lightning.losses.base import Outputs, Term


class CombinedLoss(nn.Module):
    """Weighted sum of named loss terms.

    Parameters
    ----------
    terms
        The terms by name; the order is the order of the log's columns.
    weights
        A weight for each term, finite and >= 0.

    Raises
    ------
    ValueError
        If there is no term, the names disagree, or a weight is negative or not finite.
    """

    def __init__(self, terms: Mapping[str, Term], weights: Mapping[str, float]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("a loss needs at least one term: name one in defense.use")
        if set(terms) != set(weights):
            raise ValueError(f"terms {sorted(terms)} and weights {sorted(weights)} differ: pair them by name")
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"weight {weight} of term {name!r} is not a finite number >= 0: change it")
        self.terms = nn.ModuleDict(dict(terms))
        self.weights = {name: float(weights[name]) for name in terms}

    @property
    def names(self) -> list[str]:
        """Names of the terms, in order."""
        return list(self.weights)

    @property
    def needs_pairs(self) -> bool:
        """Whether a term needs pairs of images."""
        return any(term.needs_pairs for term in self._terms().values())

    @property
    def taps(self) -> tuple[str, ...]:
        """Layers beside the embedding whose outputs the terms see."""
        return tuple(dict.fromkeys(name for term in self._terms().values() for name in term.taps))

    @property
    def places(self) -> tuple[str, ...]:
        """Where the terms take gradients: "input", "embedding" or a layer."""
        return tuple(dict.fromkeys(name for term in self._terms().values() for name in term.places))

    def floors(self, num_classes: int) -> dict[str, float]:
        """Give the floors (a branch) of the terms whose floor is not 0."""
        floors = {name: term.floor(num_classes) for name, term in self._terms().items()}
        return {name: floor for name, floor in floors.items() if floor != 0}

    def forward(self, out: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted total, and each term unweighted and detached by name."""
        values = {name: term(out) for name, term in self._terms().items()}
        weighted = [values[name] * weight for name, weight in self.weights.items()]
        total = weighted[0]
        for value in weighted[1:]:
            total = total + value
        return total, {name: value.detach() for name, value in values.items()}

    def _terms(self) -> dict[str, Term]:
        return dict(self.terms.items())  # type: ignore[arg-type]
