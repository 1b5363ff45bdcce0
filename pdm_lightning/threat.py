"""Threat models: what an adversary may touch.

An attack says what it needs (``needs``), a threat model what it grants (``grants``). A combination that asks
for more is refused when a study is planned, before anything is computed.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from pdm_lightning.target import Target, Watch, WatchedTarget

CAPABILITIES = {
    "logits": "the classifier's logits and their gradients",
    "detector": "the detector's scores",
    "detector_gradients": "the gradients of the detector's scores",
}
"""What there is to grant, and what it means."""

SURROGATES = ("", "proxy", "model")
"""Whose weights an adversary holds: the target's own, a distilled proxy's, or another training's."""


class ThreatModel(ABC):
    """What an adversary knows. A subclass names it, lists what it grants and makes the target.

    Attributes
    ----------
    name : str
        As in ``threat=<name>``.
    grants : frozenset of str
        Out of `CAPABILITIES`.
    surrogate : str
        Out of `SURROGATES`: whose weights, and whose detector, `target` gets.
    """

    name: ClassVar[str]
    grants: ClassVar[frozenset[str]]
    surrogate: ClassVar[str] = ""

    @abstractmethod
    def target(self, classifier: nn.Module, watch: Watch | None = None) -> Target:
        """Return what an attack is given of a classifier and, where the attack asks for one, its detector."""


@dataclass(frozen=True)
class GrayBox(ThreatModel):
    """The adversary has the classifier, weights and all, and does not know that there is a detector."""

    name: ClassVar[str] = "gray_box"
    grants: ClassVar[frozenset[str]] = frozenset({"logits"})

    def target(self, classifier: nn.Module, watch: Watch | None = None) -> Target:
        """Return the classifier's readout; the detector stays out of reach."""
        return Target(classifier)


@dataclass(frozen=True)
class WhiteBox(ThreatModel):
    """The adversary has the classifier and the detector, weights, kernels, thresholds and all (Table 3)."""

    name: ClassVar[str] = "white_box"
    grants: ClassVar[frozenset[str]] = frozenset(CAPABILITIES)

    def target(self, classifier: nn.Module, watch: Watch | None = None) -> Target:
        """Return the classifier with its detector; without one, its readout."""
        return Target(classifier) if watch is None else WatchedTarget(classifier, watch)


@dataclass(frozen=True)
class BlackBox(WhiteBox):
    """The adversary has neither: it distils a proxy from the target's answers and works on that (Table 4).

    It fits its own detector on the proxy and knows both in full; of the target it sees readout probabilities of
    training images alone.

    Parameters
    ----------
    proxy : mapping
        How the proxy is trained: ``model``, ``labels`` (soft or hard), ``temperature``, ``seed``; see ``conf/threat``.
    """

    name: ClassVar[str] = "black_box"
    surrogate: ClassVar[str] = "proxy"

    proxy: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Transfer(WhiteBox):
    """The adversary has neither: it trains a model of its own on the same data and works on that.

    Parameters
    ----------
    own : mapping
        The adversary's training: ``defense`` (as in ``conf/defense``) and ``seed``, added to the study's.
    """

    name: ClassVar[str] = "transfer"
    surrogate: ClassVar[str] = "model"

    own: Mapping[str, Any] = field(default_factory=dict)


def refusal(needs: Iterable[str], grants: Iterable[str], *, attack: str, threat: str) -> str:
    """Say why an attack cannot run in a threat model, in one line; empty where it can."""
    withheld = sorted(set(needs) - set(grants))
    if not withheld:
        return ""
    what = " and ".join(CAPABILITIES.get(name, name) for name in withheld)
    return f"attack={attack} needs {what}, which threat={threat} withholds: choose another attack or threat"


def needs(attack: Mapping[str, Any]) -> frozenset[str]:
    """What the attack of a configuration asks for, out of `CAPABILITIES`."""
    return frozenset(_attribute(attack, "needs"))


def lengths(attack: Mapping[str, Any]) -> dict[str, int]:
    """What says how long the attack of a configuration works, and how long; see `attacks.Attack.length`.

    Returns
    -------
    dict of str to int
        By the names that the class declares; empty where it declares none, or one that the configuration lacks.
    """
    found: dict[str, int] = {}
    for name in _attribute(attack, "length", ()):
        value: Any = attack
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, int):
            return {}
        found[name] = value
    return found


def single_step(attack: Mapping[str, Any]) -> bool:
    """Whether the attack of a configuration takes one step at most: it says so, or that is its length."""
    if _attribute(attack, "single_step", False):
        return True
    found = lengths(attack)
    return bool(found) and max(found.values()) <= 1


def surrogate_of(threat: Mapping[str, Any]) -> str:
    """Whose weights the adversary of a configuration holds, out of `SURROGATES`."""
    return str(_attribute(threat, "surrogate"))


def check(
    attack: Mapping[str, Any], threat: Mapping[str, Any], detector: Mapping[str, Any] | None = None
) -> str:
    """Hold an attack's configuration against a threat model's and a detector's, without building any.

    Parameters
    ----------
    attack, threat, detector : mapping
        Have ``_target_``, the dotted name of the class, and ``name``.

    Returns
    -------
    str
        Why the combination is refused, in one line; empty where it is granted.
    """
    asked = needs(attack)
    grants = _attribute(threat, "grants")
    if (
        detector is not None
        and "detector_gradients" in asked
        and "detector_gradients" in grants
        and not _attribute(detector, "differentiable")
    ):
        return (
            f"attack={attack['name']} needs gradients of the detector's scores, which detector={detector['name']} "
            "has not: choose an attack without (attack=square)"
        )
    return refusal(asked, grants, attack=str(attack["name"]), threat=str(threat["name"]))


def _attribute(config: Mapping[str, Any], attribute: str, default: Any = None) -> Any:
    """Read a class attribute of the class that a configuration names; without a default it has to be there."""
    module, _, name = str(config["_target_"]).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"_target_={config['_target_']} cannot be found: {error}") from error
    if not hasattr(found, attribute) and default is None:
        raise ValueError(
            f"{config['_target_']} has no attribute '{attribute}': it does not say what it {attribute}"
        )
    return getattr(found, attribute, default)
