"""Build a classifier and a loss from the config values of a training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from safetensors.torch import load_file

from pdm_lightning.losses import CombinedLoss, Term
from pdm_lightning.models import Classifier, wrap
from pdm_lightning.stages.instantiate import instantiate

_CENTRING = ("mean", "std")


def build_loss(defense: Mapping[str, Any]) -> CombinedLoss:
    """Build the loss of a defence.

    Parameters
    ----------
    defense
        ``use`` (names of terms), ``readout``, and ``term``: by name a ``_target_``, a ``weight`` and the
        term's own settings. Terms that are not used are passed over.

    Raises
    ------
    ValueError
        If a used term is not defined, or trains another readout than the defence's.
    """
    terms: dict[str, Term] = {}
    weights: dict[str, float] = {}
    for name in defense["use"]:
        if name not in defense["term"]:
            known = ", ".join(defense["term"])
            raise ValueError(
                f"defense.use names {name!r}, and defense.term defines {known}: define or drop it"
            )
        settings = dict(defense["term"][name])
        weights[name] = float(settings.pop("weight", 1.0))
        terms[name] = instantiate(settings, f"defense.term.{name}")
        trained, readout = terms[name].readout, defense.get("readout", "direct")
        if trained not in (None, readout):
            raise ValueError(
                f"term {name!r} trains a {trained} readout, not {readout}: set defense.readout={trained}"
            )
    return CombinedLoss(terms, weights)


def build_classifier(spec: Mapping[str, Any], num_classes: int, in_channels: int) -> Classifier:
    """Build the untrained classifier of a training.

    Parameters
    ----------
    spec
        ``model``: a ``_target_`` with its arguments. It makes a backbone with an attribute ``embedding_dim``,
        or, with a key ``embedding`` (dotted name of a layer), a whole network that is wrapped.
        ``in_channels`` and ``num_classes`` are passed to a target that takes them. Optional ``mean`` and
        ``std`` centre the pixels. ``defense.readout``: direct or reverse.
    num_classes
        K.
    in_channels
        Channels of the images.

    Raises
    ------
    ValueError
        If the model gives no ``embedding_dim`` and names no ``embedding``.
    """
    settings = {key: value for key, value in spec["model"].items() if key not in ("name", "label")}
    embedding = settings.pop("embedding", None)
    centring = {key: settings.pop(key) for key in _CENTRING if key in settings}
    readout = spec["defense"].get("readout", "direct")
    offered = {"in_channels": in_channels, "num_classes": num_classes}
    network = instantiate(_accepted(settings, offered) | settings, "model")
    if embedding is not None:
        return wrap(network, embedding, num_classes, readout, **centring)
    if not hasattr(network, "embedding_dim"):
        raise ValueError(
            f"{settings['_target_']} has no embedding_dim: set model.embedding to its embedding layer's name"
        )
    return Classifier(network, network.embedding_dim, num_classes, readout, **centring)


def load_classifier(spec: Mapping[str, Any], folder: Path, num_classes: int, in_channels: int) -> Classifier:
    """Rebuild a trained classifier, in eval mode on the CPU.

    Parameters
    ----------
    spec
        As given to :func:`pdm_lightning.stages.train.fit`.
    folder
        Holds ``model.safetensors``.
    num_classes, in_channels
        Of the data set that it was trained on.

    Raises
    ------
    FileNotFoundError
        If the folder holds no trained model.
    """
    path = Path(folder) / "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} not found: train the model first")
    classifier = build_classifier(spec, num_classes, in_channels)
    classifier.load_state_dict(load_file(path))
    return classifier.eval()


def _accepted(settings: Mapping[str, Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Give those of the offered arguments that the target takes; ``**kwargs`` takes the class count."""
    parameters = inspect.signature(get_object(settings["_target_"])).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {k: v for k, v in offered.items() if k in parameters or (open_ended and k == "num_classes")}
