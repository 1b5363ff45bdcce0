"""Where a training starts: the weights that ``model.weights`` names, and what is made of them without a training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from pdm_lightning.models import Classifier, library, pretrained
from pdm_lightning.stages.build import NOT_ARGUMENTS, build_classifier
from pdm_lightning.stages.context import embed

if TYPE_CHECKING:
    from pdm_lightning.data import ImageData


def told(model: Mapping[str, Any]) -> str | None:
    """What tells weights from others: the hash of a file's content, or the name that a library gives its own.

    Nothing is downloaded.

    Parameters
    ----------
    model
        An option of the group: ``weights`` is None, a path, or "DEFAULT".

    Raises
    ------
    ValueError
        If there is no such file, or the library has no weights of its own.
    """
    weights = model.get("weights")
    if weights is None:
        return None
    known = library.library_of(model)
    if weights != library.DEFAULT:
        path = Path(str(weights)).expanduser()
        stamp = path.stat() if path.exists() else None
        return _digest(str(path), stamp and (stamp.st_size, stamp.st_mtime_ns))
    if known is None:
        raise ValueError(
            "model.weights=DEFAULT: only model=torchvision and model=timm have weights: name a file"
        )
    return f"{known}:{library.default_weights(known, str(model['arch']))}"


@lru_cache(maxsize=256)
def _digest(path: str, _stamp: tuple[int, int] | None) -> str:
    """Hash of a file, worked out once a version of it."""
    return pretrained.digest(path)


def start(classifier: Classifier, spec: Mapping[str, Any], shape: tuple[int, int, int]) -> None:
    """Load the weights that a training starts from, if any, and try the network on images of a shape.

    Parameters
    ----------
    classifier
        As `build_classifier` makes it of the spec; changed in place.
    spec
        Of the training: ``model.weights`` tells the weights (see `told`), ``start``, where there are any, is the path
        or "DEFAULT" that they come from. It may be left out where ``model.weights`` is a path itself.
    shape
        (C, H, W) of the images.

    Raises
    ------
    ValueError
        If the weights cannot be read or do not fit, the file has changed since the study was planned, or the network
        does not take images of that shape.
    """
    model = spec["model"]
    weights, expected = spec.get("start") or model.get("weights"), model.get("weights")
    if expected is not None:
        state, readout = _read(model, str(weights), str(expected), shape[0])
        odd = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
        if odd:
            raise ValueError(
                f"model.weights={weights}: {odd[0]!r} is not finite everywhere: name other weights"
            )
        pretrained.load(classifier, state, readout, fresh=bool(spec["defense"]["use"]))
    check_shape(classifier, shape)


def _read(
    model: Mapping[str, Any], weights: str, expected: str, channels: int
) -> tuple[pretrained.State, str]:
    known, own = library.library_of(model), library.own_weights(model)
    if known is not None and own is not None:
        settings = {key: value for key, value in model.items() if key not in (*NOT_ARGUMENTS, "_target_")}
        return library.download(known, settings, own, channels), "direct"
    if expected.startswith("sha256:") and told({"weights": weights}) != expected:
        raise ValueError(
            f"model.weights={weights}: the file has changed since the study was planned: run it again"
        )
    return pretrained.read(weights)


@torch.no_grad()
def check_shape(classifier: Classifier, shape: tuple[int, int, int]) -> None:
    """ValueError, in one line, where a network does not take images (C, H, W); its mode stays."""
    training = [(part, part.training) for part in classifier.modules()]
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        classifier.eval()(images.to(classifier.mean))
    except ValueError as error:
        raise ValueError(f"model: {_first(error)}") from error
    except Exception as error:  # whatever a network's own layers raise
        size = "x".join(map(str, shape))
        raise ValueError(
            f"the network takes no images of {size} ({_first(error)}): data.size=224 enlarges them, data.channels=3 "
            "makes them RGB"
        ) from error
    finally:
        for part, mode in training:
            part.training = mode


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def publish_as_is(
    dataset: ImageData, spec: Mapping[str, Any], folder: Path, device: torch.device
) -> dict[str, Any]:
    """Write a classifier into a folder as its weights are: no step is taken, and nothing of it changes.

    Parameters and files are those of :func:`pdm_lightning.stages.train.fit`, for a defence that uses no term.

    Raises
    ------
    ValueError
        As `start` does; or if the weights' classes are not the data's.
    """
    from pdm_lightning.stages.folder import (
        finished,
        identity,
        publish,
    )  # Lightning, which planning need not wait for

    folder.mkdir(parents=True, exist_ok=True)
    done = finished(folder, identity(spec))
    if done is not None:
        return done
    classifier = build_classifier(spec, dataset.num_classes, dataset.shape[0]).to(device)
    start(classifier, spec, dataset.shape)
    images, labels = dataset.validation
    logits = embed(classifier.eval(), images, device)["logits"]
    row = {
        "step": 0.0,
        "images": 0.0,
        "val/loss": float(F.cross_entropy(logits, labels)),
        "val/accuracy": float((logits.argmax(dim=1) == labels).double().mean()),
    }
    facts: dict[str, Any] = {
        "steps": 0,
        "epochs": 0.0,
        "images_seen": 0,
        "seconds": 0.0,
        "devices": 1,
        "batch_size": 0,
    }
    facts |= {"batch_size_per_device": 0, "lr": None, "spec": identity(spec)}
    return publish(folder, classifier, dataset.validation, [row], facts)
