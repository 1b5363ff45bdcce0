"""What a detector asks of attack, model and data: told before a model is trained that it could not be fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pdm_lightning.data.sources import pair
from pdm_lightning.models.library import library_of
from pdm_lightning.stages.build import build_classifier
from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.stages.sight import LAYERS
from pdm_lightning.study import specs
from pdm_lightning.study.sizes import same_everywhere
from pdm_lightning.threat import CAPABILITIES, GrayBox, needs, surrogate_of

Config = Mapping[str, Any]


def built_detector(config: Config) -> Any:
    """The detector of a configuration, not fitted."""
    return instantiate(specs.detector_spec(dict(config)), "detector")


def fitted_on(config: Config) -> None:
    """ValueError unless a detector has an attack where it is fitted on one, and one of the classifier alone."""
    option = config["detector"]
    attack, learns = option.get("attack"), built_detector(config).needs_attack
    if not learns:
        if attack is not None:
            raise ValueError(
                f"detector.attack: detector={option['name']} is fitted on clean images alone: leave it out, or choose "
                "detector=lid or mahalanobis_multi"
            )
        return
    if attack is None:
        raise ValueError(
            f"detector={option['name']} is fitted on an attack: add attack@detector.attack=fgsm_010 or another"
        )
    if attack["name"] == "none":
        raise ValueError("attack@detector.attack=none: nothing to fit on: choose an attack, such as fgsm_010")
    withheld = sorted(needs(attack) - GrayBox.grants)
    if withheld:
        what = " and ".join(CAPABILITIES.get(name, name) for name in withheld)
        raise ValueError(
            f"attack@detector.attack={attack['name']} needs {what}, and there is none yet to attack: choose an attack "
            "on the classifier alone, such as fgsm_010"
        )


def layers(config: Config) -> None:
    """ValueError where a detector reads a layer that the model has not; a model of the user's own is not built."""
    option, detector = config["detector"], built_detector(config)
    named = [name for name in detector.reads if name not in LAYERS]
    models = {"model": config["model"]}
    if surrogate_of(config["threat"]) == "proxy":
        models["threat.proxy.model"] = config["threat"]["proxy"]["model"]
    for place, model in models.items() if named else ():
        known = submodules(model)
        missing = [name for name in named if known and name not in known]
        if missing:
            key = "layer" if "layer" in option else "layers"
            some = sorted(known, key=lambda name: name.count("."))[:8]
            raise ValueError(
                f"detector.{key}: {place}={model['name']} has no layer '{missing[0]}': choose e.g. "
                f"{', '.join((*LAYERS, *some))}"
            )


def submodules(model: Config) -> list[str]:
    """Names of a model's submodules, as met; none of a model that is not this project's."""
    if not str(model["_target_"]).startswith("pdm_lightning.") or library_of(model) is not None:
        return []
    with torch.random.fork_rng(devices=[]):
        classifier = build_classifier({"model": model, "defense": {}}, num_classes=10, in_channels=3)
    return [name for name, _ in classifier.named_modules() if name]


def sizes(config: Config) -> None:
    """ValueError where a detector asks for more neighbours than there are, or windows larger than the images."""
    if not str(config["detector"]["_target_"]).startswith("detection."):
        return
    detector, (classes, images, side) = built_detector(config), _known(config["data"])
    kept, wanted = config["features"]["train_per_class"], config["detector"].get("kernels_per_class", 0)
    if wanted > kept:
        raise ValueError(
            f"detector.kernels_per_class={wanted}: only features.train_per_class={kept} training embeddings a class "
            f"are kept: set detector.kernels_per_class={kept}, or features.train_per_class={wanted}"
        )
    if hasattr(detector, "k") and classes is not None:
        _neighbours(detector, classes, min(kept * classes, images))
    if side is not None:
        _windows(detector, side)


def _neighbours(detector: Any, classes: int, images: int) -> None:
    """Of so many images at most that are kept."""
    few = getattr(detector, "reference", None)
    among = images if few is None else min(images, few * classes)
    # each reference of the local dimension has itself among its neighbours
    most = among if few is None else among - 1
    if detector.k > most:
        more = "features.train_per_class" if few is None else "detector.reference"
        raise ValueError(
            f"detector.k={detector.k}: {among} training images are kept at most to look for neighbours: "
            f"set detector.k={max(most, 1)} at most, or raise {more}"
        )


def _windows(detector: Any, side: int) -> None:
    wide = [window for window in getattr(detector, "medians", ()) if window > side]
    if wide:
        raise ValueError(
            f"detector.medians: a window of {wide[0]} pixels is larger than the images ({side} pixels): use "
            f"[{min(side, 2)}]"
        )
    search = (getattr(detector, "non_local", None) or [0])[0]
    if search > 2 * side:
        raise ValueError(
            f"detector.non_local: a search window of {search} pixels reaches beyond images of {side} pixels: "
            f"use {2 * side - 1} at most"
        )


def _known(data: Config) -> tuple[int | None, float, int | None]:
    """Classes, training images and the shorter side of a data set, as far as they are known before it is read."""
    if (same := same_everywhere(data)) is not None:
        return same.classes, same.train, min(same.shape[1:])
    classes = None
    if (
        data["_target_"] == "pdm_lightning.data.image_folder"
        and (place := Path(str(data["root"])) / "train").is_dir()
    ):
        classes = sum(entry.is_dir() and not entry.name.startswith(".") for entry in place.iterdir()) or None
    return classes, float("inf"), None if data.get("size") is None else min(pair(data["size"]))
