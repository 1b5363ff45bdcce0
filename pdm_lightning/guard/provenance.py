"""Where a guard comes from: versions, data, measured rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdm_lightning.guard.checks import Check, maybe, one_of, record, text, whole
from pdm_lightning.guard.rates import Rate

LABELS = ("given", "predicted")
_COUNT = whole(0, 2**40)


def _versions(value: Any, where: str) -> dict[str, str]:
    known = {name: text(60) for name in ("pdm-lightning", "torch", "torchvision", "timm")}
    asked = [name for name in known if isinstance(value, dict) and name in value]
    told: dict[str, str] = record(**{name: known[name] for name in asked})(value, where)
    return told


_FIELDS: dict[str, Check] = {
    "created": text(40),
    "versions": _versions,
    "data": text(),
    "fingerprint": text(64),
    "labels": one_of(LABELS),
    "train": _COUNT,
    "validation": _COUNT,
    "unreadable": _COUNT,
    "seed": whole(0, 2**63 - 1),
    "alarms": Rate.from_json,
    "held_out": maybe(Rate.from_json),
    "accuracy": maybe(Rate.from_json),
}


@dataclass(frozen=True)
class Provenance:
    """How a guard was fitted, and what was measured then.

    Attributes
    ----------
    created : str
        Day and time, UTC.
    versions : mapping of str to str
        Of pdm-lightning, torch and the library of the network.
    data : str
        Name of the clean images.
    fingerprint : str
        SHA-256 of pixels and labels, in the order in which they were read.
    labels : str
        "given", or "predicted": the classifier's own predictions stood in for them.
    train, validation : int
        Images that the detector was fitted on, and those of bandwidth and threshold.
    unreadable : int
        Images that were passed over.
    seed : int
        Of the split.
    alarms : Rate
        Flagged among the validation images themselves: at most the rate allowed.
    held_out : Rate or None
        Flagged among clean images that nothing was fitted on; None where there were none to spare.
    accuracy : Rate or None
        Classified correctly among validation and held-out images; None without labels.
    """

    created: str
    versions: Mapping[str, str]
    data: str
    fingerprint: str
    labels: str
    train: int
    validation: int
    unreadable: int
    seed: int
    alarms: Rate
    held_out: Rate | None
    accuracy: Rate | None

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON holds it."""
        plain = {name: getattr(self, name) for name in _FIELDS}
        told = {name: value.to_json() if isinstance(value, Rate) else value for name, value in plain.items()}
        return {**told, "versions": dict(self.versions)}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Provenance:
        """Take over what `to_json` gives; `GuardFileError` for anything else."""
        return cls(**record(**_FIELDS)(value, where))
