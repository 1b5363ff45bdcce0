"""What a defence asks of the model and the devices that train it, before anything is trained."""

from __future__ import annotations

from typing import Any

from pdm_lightning.losses import unknown_layer
from pdm_lightning.stages.build import build_loss
from pdm_lightning.study.validate_detector import submodules

Config = dict[str, Any]


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
