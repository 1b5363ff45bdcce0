"""The trained model and the images that every implementation is given."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.models import small_resnet, train
from pdm_lightning.data import load_data, to_unit
from pdm_lightning.stages.context import open_classifier
from pdm_lightning.store import Store

CONFIGS = Path(__file__).parents[1] / "conf" / "data"


@dataclass(frozen=True)
class Subject:
    """A model in eval mode and correctly classified images.

    Attributes
    ----------
    model
        Maps images in [0, 1] to logits.
    x, y
        (n, C, H, W) float32 images and (n,) int64 labels, which the model predicts.
    name
        What it is, without a path of the machine.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    name: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose model and images."""
    group = parser.add_argument_group("model and images")
    group.add_argument("--artifact", type=Path, help="folder of a trained model: outputs/store/.../train/KEY")
    group.add_argument(
        "--model", help="dotted path of a callable that returns a network, e.g. package.module.factory"
    )
    group.add_argument("--model-args", default="{}", help="its arguments, as JSON: '{\"depth\": 20}'")
    group.add_argument("--weights", type=Path, help="its weights: .safetensors, or .pt holding a state dict")
    group.add_argument(
        "--train-steps", type=int, default=150, help="training without --weights (default 150)"
    )
    group.add_argument(
        "--images", type=Path, help=".safetensors with x (float in [0, 1], NCHW) and y (int64)"
    )
    group.add_argument("--data", default="digits", help="a file of conf/data without .yaml (default digits)")
    group.add_argument("--root", type=Path, help="where the data set's files are")


def load(options: argparse.Namespace, count: int) -> Subject:
    """Read the subject that the command line names.

    Parameters
    ----------
    options
        With the attributes of `add_options`, and `seed`.
    count
        Images at most.

    Raises
    ------
    FileNotFoundError, ValueError
        In one line, with the option that mends it.
    """
    if options.artifact and (options.model or options.weights):
        raise ValueError("--artifact brings its own model: leave out --model and --weights")
    if options.weights and not options.model:
        raise ValueError("--weights needs --model: name the callable that builds the network")
    if options.artifact:
        model, config, name = _artifact(options.artifact)
    else:
        model, config, name = None, None, options.model or "ResNet-8"
    # images from a file and weights of its own: no data set is opened
    needed = not options.images or (model is None and not options.weights)
    data: Any = _data(options, config) if needed else None
    if model is None:
        model = _network(options, data)
    x, y = _images(options.images) if options.images else data_images(data)
    chosen_x, chosen_y = correct(model, x, y, count)
    where = options.images.name if options.images else data.name
    return Subject(model, chosen_x, chosen_y, f"{name} on {where}")


def correct(model: nn.Module, x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images that the model, put into eval mode, classifies correctly.

    Raises
    ------
    ValueError
        If there is none, or the model does not take the images.
    """
    model.eval()
    try:
        with torch.no_grad():
            right = torch.cat([model(part).argmax(dim=1) for part in x.split(512)]) == y
    except RuntimeError as error:
        raise _unfit(x, error) from None
    rows = right.nonzero().squeeze(1)[:count]
    if not len(rows):
        raise ValueError("the model classifies none of the images correctly: check --weights and --data")
    return x[rows].clone(), y[rows].clone()


def _unfit(x: Tensor, error: Exception) -> ValueError:
    line = (str(error).splitlines() or [""])[0]
    return ValueError(
        f"the model does not take images {tuple(x.shape[1:])} ({line}): change --model-args or --data"
    )


def data_images(data: Any) -> tuple[Tensor, Tensor]:
    """The first 2,000 test images in the fixed order of the studies, and their labels."""
    rows = data.test_order(2000)
    return to_unit(data.test[0][rows]), data.test[1][rows]


def resolve(path: str) -> Any:
    """The object behind a dotted path.

    Raises
    ------
    ValueError
        If there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--model {path} cannot be imported ({error}): give package.module.factory"
        ) from None


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """A state dict from .safetensors, or from a file of `torch.save` that holds tensors alone.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path.name}: check --weights")
    if path.suffix == ".safetensors":
        return load_file(path)
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _artifact(folder: Path) -> tuple[nn.Module, dict[str, Any], str]:
    artifact = Store(folder.parent.parent).open(folder.parent.name, folder.name)
    spec = artifact.manifest["spec"]
    config = {key: value for key, value in spec["data"].items() if key != "fingerprint"}
    kind = spec["model"]["_target_"].rpartition(".")[2]
    depth = f"-{spec['model']['depth']}" if "depth" in spec["model"] else ""
    defense = "+".join(spec["defense"]["use"])
    return open_classifier(artifact), config, f"{kind}{depth} ({defense}, {folder.name})"


def _data(options: argparse.Namespace, config: dict[str, Any] | None) -> Any:
    if config is None:
        path = CONFIGS / f"{options.data}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
            raise ValueError(f"--data {options.data} is unknown: choose one of {known}")
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    place = {} if options.root is None else {"root": str(options.root)}
    return load_data(config | place)


def _network(options: argparse.Namespace, data: Any) -> nn.Module:
    try:
        arguments = json.loads(options.model_args)
    except json.JSONDecodeError as error:
        raise ValueError(f"--model-args is no JSON ({error}): write e.g. '{{\"depth\": 20}}'") from None
    torch.manual_seed(options.seed)
    if options.model:
        model: nn.Module = resolve(options.model)(**arguments)
    else:
        model = small_resnet(in_channels=data.shape[0], num_classes=data.num_classes)
    if options.weights:
        model.load_state_dict(read_weights(options.weights))
    else:
        try:
            train(model, to_unit(data.train[0]), data.train[1], options.train_steps, options.seed)
        except RuntimeError as error:
            raise _unfit(data.train[0], error) from None
    return model.eval()


def _images(path: Path) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no images file {path.name}: check --images")
    held = load_file(path)
    if not {"x", "y"} <= held.keys():
        raise ValueError(f"{path.name} holds {', '.join(sorted(held)) or 'nothing'}: it needs x and y")
    return held["x"].float(), held["y"].long()
