"""An implementation of an attack, as the benchmark sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Claim:
    """What an implementation returns.

    Attributes
    ----------
    x_adv
        (n, C, H, W) images.
    success
        (n,) bool, what it says of them; None: it says nothing, and every misclassified image counts as claimed.
    """

    x_adv: Tensor
    success: Tensor | None = None


#: Takes images (n, C, H, W), labels (n,) and, in a targeted family, the classes (n,) to aim at.
Run = Callable[[Tensor, Tensor, Tensor | None], Claim]


@dataclass(frozen=True)
class Ready:
    """An implementation bound to a model.

    Attributes
    ----------
    run
        The attack.
    copies
        Other modules that the model's passes go through, for the count.
    """

    run: Run
    copies: tuple[nn.Module, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes
    ----------
    library
        Whose it is; "ours" for this project.
    label
        Name in the table.
    build
        Takes a model in eval mode and the images; what it does (wrapping, folding) is timed apart.
    path
        Of ours alone: "engine" or "exact".
    """

    library: str
    label: str
    build: Callable[[nn.Module, Tensor], Ready]
    path: str = ""
