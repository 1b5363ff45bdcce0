"""What a stored artifact is, in a few words: from its settings and from those of what it was made of.

Names of options are no part of an artifact (two names of the same settings are one artifact), so the words are those of
the settings: ``digits resnet8 rce+siamese seed=0 BIM eps=0.1 KDE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdm_lightning.manifest import CorruptArtifact
from pdm_lightning.survey import Survey

Words = dict[str, str]
"""By slot."""

SLOTS = ("data", "model", "defense", "seed", "surrogate", "attack", "detector", "more")
_OF_ATTACK = ("norm", "eps", "iterations", "max_iterations", "confidence", "targeted")
#: Whose words count first where parents say different things of the same slot.
_ROLES = ("train", "features", "craft", "noise", "a")
_DETECTORS = ("detector", "val_detector")


class Descriptions:
    """Words for the artifacts of a store, each found once.

    Parameters
    ----------
    survey : Survey
    """

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self._known: dict[str, Words] = {}

    def of(self, key: str) -> str:
        """In one line; empty for what the store does not hold, or cannot be read."""
        return said(self.words(key))

    def words(self, key: str) -> Words:
        """By slot."""
        if key not in self._known:
            self._known[key] = {}  # a manifest that names itself as an ancestor is told without end otherwise
            for kind in self.survey.kinds.get(key, ()):
                try:
                    content = self.survey.manifest(kind, key)
                except CorruptArtifact:
                    content = None
                if content is not None:
                    self._known[key] = self._made(kind, content["spec"], content["parents"])
        return self._known[key]

    def _made(self, kind: str, spec: Mapping[str, Any], parents: Mapping[str, str]) -> Words:
        words: Words = {}
        for role in sorted(parents, key=lambda role: _ROLES.index(role) if role in _ROLES else len(_ROLES)):
            below = self.words(parents[role])
            if role == "surrogate":
                below = {"surrogate": f"via {said(_differing(below, words))}"}
            elif role == "examples":
                continue  # told with the detector that is fitted on them
            words = below | words
        words |= own(spec)
        if kind in _DETECTORS and "examples" in parents:
            words["detector"] += f" fitted on {self.words(parents['examples']).get('attack', '?')}"
        if kind == "proxy":
            words = {slot: words[slot] for slot in words if slot != "defense"} | {"more": "proxy"}
        if {"a", "b"} <= parents.keys():
            words["more"] = f"minus {said(_differing(self.words(parents['b']), words))}"
        scores = sum(role.startswith("score") for role in parents)
        if scores > 1:
            words["attack"] = f"{scores} attacks"
        return words


def own(spec: Mapping[str, Any]) -> Words:
    """What an artifact's own settings say."""
    words: Words = {}
    if isinstance(spec.get("data"), Mapping):
        words["data"] = _data(spec["data"])
        words["model"] = _model(spec.get("model") or {})
        words["defense"] = "+".join((spec.get("defense") or {}).get("use", ())) or "frozen"
        words["seed"] = f"seed={spec.get('seed')}"
    if isinstance(spec.get("attack"), Mapping):
        words["attack"] = _attack(spec["attack"])
    if "_target_" in spec:
        words["detector"] = _tail(spec)
    if {"norm", "eps"} <= spec.keys():
        words["more"] = f"{spec['norm']} {spec['eps']:g}"
    return words


def said(words: Words) -> str:
    """In one line."""
    return " ".join(words[slot] for slot in SLOTS if words.get(slot))


def _differing(words: Words, others: Words) -> Words:
    """What words say that others do not say; all of it where they say the same."""
    return {slot: text for slot, text in words.items() if others.get(slot) != text} or words


def _tail(spec: Mapping[str, Any]) -> str:
    return str(spec.get("_target_", "?")).rpartition(".")[2]


def _data(spec: Mapping[str, Any]) -> str:
    if spec.get("dataset"):
        return str(spec["dataset"])
    tail, told = _tail(spec), str(spec.get("fingerprint", ""))[:6]
    return f"{tail}[{told}]" if tail == "image_folder" else tail


def _model(spec: Mapping[str, Any]) -> str:
    if "arch" in spec:
        return str(spec["arch"])
    return f"{_tail(spec).lower()}{spec.get('depth', '')}" + ("-preact" if spec.get("preact") else "")


def _attack(spec: Mapping[str, Any]) -> str:
    told = [f"{key}={spec[key]}" for key in _OF_ATTACK if spec.get(key) not in (None, False, "linf")]
    return " ".join([_tail(spec), *told])
