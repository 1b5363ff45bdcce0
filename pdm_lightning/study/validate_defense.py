"""What a defence asks of the model and the devices that train it, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdm_lightning.errors import nearest
from pdm_lightning.losses import unknown_layer
from pdm_lightning.stages.build import build_loss
from pdm_lightning.study.checks import mapping
from pdm_lightning.study.validate_detector import submodules

Config = dict[str, Any]


def terms(config: Config, place: str) -> None:
    """ValueError for a term that is none: a name mistyped after ``+`` would make a second row of the same model."""
    known = mapping(config, f"{place}.term")
    real = [name for name, term in known.items() if isinstance(term, Mapping) and "_target_" in term]
    for name in known:
        if name not in real:
            hint = nearest(name, real) or ":"
            raise ValueError(
                f"{place}.term.{name}: there is no such term{hint} {place}.term has {', '.join(real)}; a term of "
                "your own needs a _target_"
            )


def layers(config: Config) -> None:
    """ValueError where a term names a layer that the model has not; a model of the user's own is not built."""
    defense, model = config["defense"], config["model"]
    for name in defense["use"]:
        loss = build_loss(defense | {"use": [name]})
        # most defences name none: no model is built for them
        known = submodules(model) if loss.taps or set(loss.places) - {"input", "embedding"} else []
        told = unknown_layer(loss, known) if known else ""
        if told:
            raise ValueError(f"defense.term.{name}.layers: model={model['name']}: {told}")


def devices(config: Config) -> None:
    """ValueError where several devices shall train a loss that takes gradients of its own."""
    count = config["trainer"].get("devices", 1)
    if count > 1 and build_loss(config["defense"]).places:
        from pdm_lightning.lit import ONE_DEVICE  # Lightning, which planning need not wait for

        raise ValueError(f"trainer.devices={count}: defense={config['defense']['name']}: {ONE_DEVICE}")
