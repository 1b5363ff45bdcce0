"""Threat models: what an adversary may touch.

An attack says what it needs (``needs``), a threat model what it grants (``grants``). A combination that asks
for more is refused when a study is planned, before anything is computed.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

CAPABILITIES = {
    "logits": "the classifier's logits and their gradients",
    "detector": "the detector and its gradients",
}
"""What there is to grant, and what it means."""


@dataclass(frozen=True)
class Target:
    """What an adversary holds in its hands: the classifier's readout, and nothing else.

    Attributes
    ----------
    module : nn.Module
        Images (N, C, H, W) in [0, 1] to readout logits (N, K); an attack freezes it while it works.
    """

    module: nn.Module

    def logits(self, x: Tensor) -> Tensor:
        """Return the readout logits (N, K) of images (N, C, H, W) in [0, 1], differentiable."""
        logits: Tensor = self.module(x)
        return logits


class ThreatModel(ABC):
    """What an adversary knows. A subclass names it, lists what it grants and makes the target.

    Attributes
    ----------
    name : str
        As in ``threat=<name>``.
    grants : frozenset of str
        Out of `CAPABILITIES`.
    """

    name: ClassVar[str]
    grants: ClassVar[frozenset[str]]

    @abstractmethod
    def target(self, classifier: nn.Module, detector: Any = None) -> Target:
        """Return what an attack is given of a classifier and a detector."""


@dataclass(frozen=True)
class GrayBox(ThreatModel):
    """The adversary has the classifier, weights and all, and does not know that there is a detector."""

    name: ClassVar[str] = "gray_box"
    grants: ClassVar[frozenset[str]] = frozenset({"logits"})

    def target(self, classifier: nn.Module, detector: Any = None) -> Target:
        """Return the classifier's readout; the detector stays out of reach."""
        return Target(classifier)


def refusal(needs: Iterable[str], grants: Iterable[str], *, attack: str, threat: str) -> str:
    """Say why an attack cannot run in a threat model, in one line; empty where it can."""
    withheld = sorted(set(needs) - set(grants))
    if not withheld:
        return ""
    what = " and ".join(CAPABILITIES.get(name, name) for name in withheld)
    return f"attack={attack} needs {what}, which threat={threat} withholds: choose another attack or threat"


def check(attack: Mapping[str, Any], threat: Mapping[str, Any]) -> str:
    """Hold an attack's configuration against a threat model's, without building either.

    Parameters
    ----------
    attack, threat : mapping
        Have ``_target_``, the dotted name of the class, and ``name``.

    Returns
    -------
    str
        Why the combination is refused, in one line; empty where it is granted.
    """
    needs = _attribute(attack, "needs")
    grants = _attribute(threat, "grants")
    return refusal(needs, grants, attack=str(attack["name"]), threat=str(threat["name"]))


def _attribute(config: Mapping[str, Any], attribute: str) -> Iterable[str]:
    """Read a class attribute of the class that a configuration names."""
    module, _, name = str(config["_target_"]).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"_target_={config['_target_']} cannot be found: {error}") from error
    if not hasattr(found, attribute):
        raise ValueError(
            f"{config['_target_']} has no attribute '{attribute}': it does not say what it {attribute}"
        )
    value: Iterable[str] = getattr(found, attribute)
    return value
