"""The JSON document of a guard file, checked to the last key; version 1.

``schema``, ``kind``: what it is. ``classes``: names. ``classifier``: network, form, embedding, readout.
``preprocessing``: size, channels, resize rule, mean, std. ``detector``: name and arguments. ``threshold``: value and
rate. ``provenance``: see `pdm_lightning.guard.provenance`. Unknown keys are refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from pdm_lightning.guard import detectors
from pdm_lightning.guard.architecture import MAX_CLASSES, Architecture
from pdm_lightning.guard.checks import (
    Check,
    GuardFileError,
    flag,
    listing,
    maybe,
    number,
    one_of,
    record,
    text,
    whole,
)
from pdm_lightning.guard.header import parse_json
from pdm_lightning.guard.preprocessing import RULES, Preprocessing
from pdm_lightning.guard.provenance import Provenance
from pdm_lightning.models import Classifier, WrappedClassifier

SCHEMA = 1
KIND = "pdm-lightning guard"
_PIXELS = number(-1e6, 1e6)


@dataclass(frozen=True)
class Form:
    """How a network becomes a classifier.

    Attributes
    ----------
    kind : str
        "backbone" (with a linear head of this project) or "wrapped".
    embedding : str or None
        Of a wrapped network: the layer; None where it was found.
    embedding_dim : int
        Width of a backbone's embedding; 0 of a wrapped network.
    readout : str
        "direct" or "reverse".
    negate : bool
        Of a wrapped network with a reverse readout: its own output is that readout.
    """

    kind: str
    embedding: str | None
    embedding_dim: int
    readout: str
    negate: bool

    @classmethod
    def of(cls, classifier: Classifier) -> Form:
        """Of a classifier."""
        if isinstance(classifier, WrappedClassifier):
            negate = bool(getattr(classifier, "negate", False))
            return cls("wrapped", classifier.embedding, 0, classifier.readout, negate)
        return cls("backbone", None, classifier.head.in_features, classifier.readout, False)

    def build(self, network: nn.Module, classes: int, mean: list[float], std: list[float]) -> Classifier:
        """Make the classifier of a network."""
        if self.kind == "wrapped":
            classifier: Any = Classifier.wrap(network, self.embedding, classes, self.readout, mean, std)
            if self.negate:
                classifier.negate = True
            return classifier  # type: ignore[no-any-return]
        return Classifier(network, self.embedding_dim, classes, self.readout, mean, std)


@dataclass(frozen=True)
class Document:
    """All that a guard file says beside its tensors."""

    classes: list[str]
    network: Architecture
    form: Form
    preprocessing: Preprocessing
    mean: list[float]
    std: list[float]
    detector: dict[str, Any]
    threshold: float
    fpr: float
    provenance: Provenance

    def build(self, network: nn.Module) -> Classifier:
        """Make the classifier of a network."""
        return self.form.build(network, len(self.classes), self.mean, self.std)

    def dumps(self) -> str:
        """Give it as one line of JSON, after a check that it can be read again."""
        told = json.dumps(
            {
                "schema": SCHEMA,
                "kind": KIND,
                "classes": self.classes,
                "classifier": {"network": self.network.to_json(), **asdict(self.form)},
                "preprocessing": {**asdict(self.preprocessing), "mean": self.mean, "std": self.std},
                "detector": self.detector,
                "threshold": {"value": self.threshold, "fpr": self.fpr},
                "provenance": self.provenance.to_json(),
            },
            sort_keys=True,
        )
        Document.loads(told)
        return told

    @classmethod
    def loads(cls, content: str) -> Document:
        """Read what `dumps` gives; `GuardFileError` for anything else."""
        raw = parse_json(content, "guard")
        if isinstance(raw, dict) and raw.get("kind") == KIND and raw.get("schema") != SCHEMA:
            newer = isinstance(raw.get("schema"), int) and raw["schema"] > SCHEMA
            mend = "update pdm-lightning" if newer else "fit it again"
            raise GuardFileError(f"guard.schema: this version reads schema {SCHEMA}: {mend}")
        told = _DOCUMENT(raw, "guard")
        kept = dict(told["classifier"])
        network, pixels = kept.pop("network"), dict(told["preprocessing"])
        mean, std = pixels.pop("mean"), pixels.pop("std")
        found = cls(
            told["classes"],
            network,
            Form(**kept),
            Preprocessing(**pixels),
            mean,
            std,
            told["detector"],
            told["threshold"]["value"],
            told["threshold"]["fpr"],
            told["provenance"],
        )
        found._check()
        return found

    def _check(self) -> None:
        """What each value allows, and all of them together do not."""
        if not {len(self.mean), len(self.std)} <= {1, self.preprocessing.channels}:
            raise GuardFileError("guard.preprocessing: mean and std need one value, or one a channel")
        classes = self.network.arguments.get("num_classes", len(self.classes))
        channels = [self.network.arguments.get(key) for key in ("in_channels", "in_chans")]
        if classes != len(self.classes):
            raise GuardFileError(
                f"guard.classes: {len(self.classes)} names, the network has {classes} classes"
            )
        if not set(channels) <= {None, self.preprocessing.channels}:
            raise GuardFileError("guard.preprocessing: the network takes another number of channels")
        if (self.form.kind == "backbone") != (self.form.embedding_dim > 0):
            raise GuardFileError("guard.classifier: a backbone, and only a backbone, has an embedding_dim")
        if self.form.negate and (self.form.kind, self.form.readout) != ("wrapped", "reverse"):
            raise GuardFileError("guard.classifier: negate is for a wrapped network with a reverse readout")
        if self.network.source == "resnet" and self.form.embedding_dim != self.network.arguments["widths"][2]:
            raise GuardFileError("guard.classifier: embedding_dim is not the network's")
        detectors.check_cost(self.detector, self.preprocessing.shape)


_DOCUMENT: Check = record(
    schema=whole(SCHEMA, SCHEMA),
    kind=one_of((KIND,)),
    classes=listing(text(), 2, MAX_CLASSES),
    classifier=record(
        network=Architecture.from_json,
        kind=one_of(("backbone", "wrapped")),
        embedding=maybe(text()),
        embedding_dim=whole(0, 1_000_000),
        readout=one_of(("direct", "reverse")),
        negate=flag,
    ),
    preprocessing=record(
        height=whole(1, 1024),
        width=whole(1, 1024),
        channels=whole(1, 4),
        resize=one_of(RULES),
        mean=listing(_PIXELS, 1, 4),
        std=listing(number(0, 1e6, above=True), 1, 4),
    ),
    detector=detectors.check,
    threshold=record(value=number(), fpr=number(0, 0.5, above=True)),
    provenance=Provenance.from_json,
)
