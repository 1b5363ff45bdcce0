"""The classifier that ``pdml fit`` is asked to guard: of the store, of a library, or of the user's own code."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pdm_lightning.guard.architecture import Architecture
from pdm_lightning.models import Classifier, WrappedClassifier, library, pretrained
from pdm_lightning.stages.context import open_classifier
from pdm_lightning.store import Store


@dataclass(frozen=True)
class Model:
    """A classifier and what is known of its images.

    Attributes
    ----------
    classifier : Classifier
    classes : list of str or None
        Names, where they are known.
    size : tuple of int
        (H, W).
    channels : int
    resize : str
    architecture : str or None
        "torchvision/resnet18"; None where it is to be found.
    """

    classifier: Classifier
    classes: list[str] | None
    size: tuple[int, int]
    channels: int
    resize: str
    architecture: str | None


def open_model(
    given: argparse.Namespace, key: str, names: Sequence[str] | None, folders: int | None
) -> Model:
    """Open the classifier that the words ask for.

    Parameters
    ----------
    given : argparse.Namespace
        See `pdm_lightning.study.guard_words`.
    key : str
        Of the store; empty where a flag names the model.
    names : sequence of str, optional
        Class names that were typed.
    folders : int, optional
        How many class folders the images have.

    Raises
    ------
    ValueError
        In one line, for what cannot be met.
    """
    if key:
        return _stored(given, key, names)
    if given.imported:
        made = imported(given.imported)
        if isinstance(made, Classifier):
            _refuse(given, ("embedding", "mean", "std"), "belongs to the Classifier, which has its own")
        if given.weights not in (None, "random"):
            _take(made, _state(given.weights), given.weights)
        return _wrapped(given, made, names, None, None)
    source = "torchvision" if given.torchvision else "timm"
    word = f"{source}/{given.torchvision or given.timm}"
    Architecture.named(word, 1000, 3)  # the name is in the library's list
    pixels = library.pixels(source, word.partition("/")[2])
    given.size = given.size or pixels.size
    network = _of_library(given, source, len(names) if names else folders)
    return _wrapped(given, network, names, word, pixels)


def _stored(given: argparse.Namespace, key: str, names: Sequence[str] | None) -> Model:
    fixed = ("weights", "embedding", "mean", "std", "channels", "size")
    _refuse(given, fixed, "belongs to the trained model, which has its own")
    artifact = Store(Path(given.store) / "store").find(key)
    if artifact.kind not in ("train", "proxy"):
        raise ValueError(
            f"{artifact.kind}/{artifact.key} is no trained model: pdml store ls train lists them"
        )
    told = artifact.json("data.json")
    channels, height, width = told["shape"]
    classes = list(names) if names else [str(name) for name in told["classes"]]
    return Model(
        open_classifier(artifact), classes, (height, width), channels, given.resize or "stretch", None
    )


def _refuse(given: argparse.Namespace, fixed: Sequence[str], why: str) -> None:
    odd = [name for name in fixed if getattr(given, name) is not None]
    if odd:
        raise ValueError(f"--{odd[0]} {why}: leave it out")


def imported(word: str) -> nn.Module:
    """Make the network of ``package.module:function``, which the user typed: this runs the user's code.

    A dot does for the colon, as in ``model.target`` of a study.

    Raises
    ------
    ValueError
        Where there is no such function, or it makes no network.
    """
    module, _, name = word.partition(":") if ":" in word else word.rpartition(".")
    if not (module and name):
        raise ValueError(f"--import {word}: write package.module:function")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--import {word}: {error}") from error
    made = found if isinstance(found, nn.Module) else found()
    if not isinstance(made, nn.Module):
        raise ValueError(f"--import {word}: this makes a {type(made).__name__}, and no torch.nn.Module")
    return made


def _of_library(given: argparse.Namespace, source: str, count: int | None) -> nn.Module:
    name, weights = given.torchvision or given.timm, given.weights or "pretrained"
    channels = given.channels or 3
    if weights == "pretrained":
        network = _pretrained(source, name, channels)
        classes = _outputs(network, given.size, channels)
        if count is not None and count < classes and given.classes:
            raise ValueError(f"--classes: {count} names, the pretrained {name} has {classes} classes")
        return network
    if weights == "random":
        return Architecture.named(f"{source}/{name}", count or 1000, channels).build()
    network, state = Architecture.named(f"{source}/{name}", 1000, channels).build(), _state(weights)
    with _of(weights):
        found, heads = pretrained.fitted(network.state_dict(), state, 1000)
    if heads:  # of another number of classes than ImageNet's
        network = Architecture.named(f"{source}/{name}", len(found[heads[-1]]), channels).build()
    _take(network, found, weights)
    return network


def _pretrained(source: str, name: str, channels: int) -> nn.Module:
    """Have the library fetch its own weights."""
    try:
        if source == "timm":
            import timm

            return timm.create_model(name, pretrained=True, in_chans=channels)  # type: ignore[no-any-return]
        import torchvision.models

        return torchvision.models.get_model(name, weights="DEFAULT")  # type: ignore[no-any-return]
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the pretrained weights of {name} cannot be had ({' '.join(str(error).split())[:120]}): "
            "give --weights FILE, or --weights random for a trial"
        ) from error


def _state(weights: str) -> pretrained.State:
    if not Path(weights).expanduser().is_file():
        raise FileNotFoundError(f"--weights {weights}: no such file (or pretrained, or random)")
    with _of(weights):
        return pretrained.read(weights)[0]


def _take(network: nn.Module, state: pretrained.State, weights: str) -> None:
    target = network.module if isinstance(network, WrappedClassifier) else network
    own = target.state_dict()
    with _of(weights):
        found, _ = pretrained.fitted(own, state, classes=0)  # no head may stay fresh
    target.load_state_dict(pretrained.versioned(target, own | found))


@contextmanager
def _of(weights: str) -> Iterator[None]:
    """Say which flag an error is about."""
    try:
        yield
    except ValueError as error:
        told = str(error)
        about = (
            told.removeprefix("model.weights ") if told.startswith("model.") else told.removeprefix(weights)
        )
        raise ValueError(f"--weights {weights} {about.lstrip()}") from error


@torch.no_grad()
def _outputs(network: nn.Module, size: tuple[int, int], channels: int) -> int:
    try:
        found = network.eval()(torch.zeros(1, channels, *size))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the network does not take images of {channels} x {size[0]} x {size[1]} ({told}): give --size, --channels"
        ) from error
    if not isinstance(found, torch.Tensor) or found.dim() != 2:
        raise ValueError("the network's output is no (N, K) tensor of logits: wrap it so that it is")
    return found.shape[1]


def _wrapped(
    given: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str] | None,
    architecture: str | None,
    pixels: library.Pixels | None,
) -> Model:
    size, channels = given.size or (224, 224), given.channels or 3
    count = _outputs(network, size, channels)
    if names and len(names) != count:
        raise ValueError(f"--classes: {len(names)} names, the network has {count} outputs")
    classifier = network
    if not isinstance(network, Classifier):
        own: tuple[Any, Any] = (0.0, 1.0) if pixels is None else (pixels.mean, pixels.std)
        if pixels is not None and channels == 1:
            own = (sum(pixels.mean) / 3, sum(pixels.std) / 3)
        mean = own[0] if given.mean is None else given.mean
        std = own[1] if given.std is None else given.std
        classifier = Classifier.wrap(network, given.embedding, count, "direct", mean, std)
    assert isinstance(classifier, Classifier)
    if architecture is not None:  # told before the work, which could not be saved
        Architecture.named(architecture, count, channels, network).check(network)
    return Model(
        classifier.eval(),
        list(names) if names else None,
        size,
        channels,
        given.resize or ("stretch" if pixels is None else "crop"),
        architecture,
    )
