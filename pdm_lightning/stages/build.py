"""Build a classifier and a loss from the config values of a training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from safetensors.torch import load_file

from pdm_lightning.losses import CombinedLoss, Term
from pdm_lightning.models import Classifier, WrappedClassifier, library, pretrained
from pdm_lightning.stages.instantiate import instantiate

#: Keys of a model's option that its target does not get; ``target`` is what `model=import` names its ``_target_`` by.
NOT_ARGUMENTS = ("name", "label", "target", "embedding", "weights", "mean", "std")


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
        ``model``: a ``_target_`` with its arguments. It makes a backbone with an attribute ``embedding_dim``, or a
        whole network that is wrapped; a key ``embedding`` (dotted name of a layer) says so of any.
        ``in_channels`` and ``num_classes`` are passed to a target that takes them. Optional ``mean`` and
        ``std`` centre the pixels; where they are None, a timm network's own do. ``weights`` are not loaded here, see
        :mod:`pdm_lightning.stages.start`. ``defense.readout``: direct or reverse.
    num_classes
        K.
    in_channels
        Channels of the images.

    Raises
    ------
    ValueError
        If the model gives no ``embedding_dim``, names no ``embedding``, and has no linear layer.
    """
    option = spec["model"]
    settings = {key: value for key, value in option.items() if key not in NOT_ARGUMENTS}
    readout = spec["defense"].get("readout", "direct")
    own = library.own_weights(option)
    if own is not None and library.library_of(option) == "torchvision":
        settings = library.own_arguments(str(option["arch"]), own) | settings
    offered = {"in_channels": in_channels, "num_classes": num_classes}
    network = instantiate(_accepted(settings, offered) | settings, "model")
    centring = _centring(option, network, in_channels)
    if option.get("embedding") is None and hasattr(network, "embedding_dim"):
        return Classifier(network, network.embedding_dim, num_classes, readout, **centring)
    return WrappedClassifier(
        network, option.get("embedding"), num_classes, readout, **centring, negate=readout == "reverse"
    )


def _centring(option: Mapping[str, Any], network: Any, in_channels: int) -> dict[str, Any]:
    """Mean and std of the option; else those that a timm network was trained with, their mean for other channels."""
    own = getattr(network, "pretrained_cfg", None) or {}
    found = {}
    for key in ("mean", "std"):
        value = option.get(key)
        if value is None and own.get(key) is not None:
            value = list(own[key]) if len(own[key]) == in_channels else sum(own[key]) / len(own[key])
        if value is not None:
            found[key] = value
    return found


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
    classifier.load_state_dict(pretrained.versioned(classifier, load_file(path)))
    return classifier.eval()


def _accepted(settings: Mapping[str, Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Give those of the offered arguments that the target takes; ``**kwargs`` takes the class count."""
    parameters = inspect.signature(get_object(settings["_target_"])).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {k: v for k, v in offered.items() if k in parameters or (open_ended and k == "num_classes")}
