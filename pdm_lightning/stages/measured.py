"""What the stages that measure a trained classifier share: which images, which of its layers, how results are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detection import Interval
from pdm_lightning.data import to_unit
from pdm_lightning.models import Classifier
from pdm_lightning.stages import features
from pdm_lightning.stages.context import Context

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

BATCH = 64
"""Images that are differentiated at a time."""


def correctly_classified(
    parent: Node, images: int, context: Context
) -> tuple[Tensor, Tensor, Tensor, features.Features]:
    """The correctly classified among the first `images` test images of the fixed order.

    Parameters
    ----------
    parent : Node
        Of kind ``features``.
    images : int
    context : Context

    Returns
    -------
    index : (N,) int64 Tensor
        Their numbers in the test set.
    x : (N, C, H, W) float32 Tensor
        In [0, 1], on the classifier's device.
    y : (N,) int64 Tensor
        Their classes, there too.
    seen : Features
        Of all test images.

    Raises
    ------
    ValueError
        Where there is none.
    """
    data, seen = context.data(parent), features.read(context.artifact(parent))["test"]
    order = data.test_order(images)
    index = order[(seen.predicted == seen.labels)[order]]
    if not len(index):
        raise ValueError(
            f"{parent.title}: none of {len(order)} test images is classified correctly: train longer"
        )
    device = context.device(parent.parents["train"])
    return index, to_unit(data.test[0][index]).to(device), data.test[1][index].to(device), seen


def looked_at(parent: Node, images: int, context: Context) -> dict[str, int]:
    """How many test images were looked at, and how many there are."""
    total = len(context.data(parent).test[1])
    return {"measured": min(images, total), "of": total}


def stages_of(classifier: Classifier) -> dict[str, str]:
    """Name of each stage of a network, as it is printed, and as a submodule of the classifier.

    A network that names its stages (``stage_names``) is asked; of any other one they are its outermost layers.
    """
    place, network = next(
        (name, child) for name, child in classifier.named_children() if name in ("backbone", "module")
    )
    names = getattr(network, "stage_names", None) or [name for name, _ in network.named_children()]
    return {name: f"{place}.{name}" for name in names}


@contextmanager
def outputs_of(model: nn.Module, names: dict[str, str]) -> Iterator[dict[str, Tensor]]:
    """Catch the whole outputs of layers, in the graph, while a model runs; by the keys of `names`.

    A layer that runs twice, or puts out something else than a tensor, is not among them.
    """
    caught: dict[str, Tensor] = {}
    twice: set[str] = set()

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name in caught or name in twice or not isinstance(output, Tensor):
                caught.pop(name, None)
                twice.add(name)
            else:
                caught[name] = output

        return hook

    handles = [model.get_submodule(layer).register_forward_hook(keep(name)) for name, layer in names.items()]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def norms(gradient: Tensor) -> Tensor:
    """(N,) float64 L2 norm of each image's gradient, on the CPU."""
    found: Tensor = gradient.detach().double().flatten(1).norm(dim=1).cpu()
    return found


def told(interval: Interval) -> dict[str, Any]:
    """An interval as JSON has it: a limit that is not finite is none."""
    limits = {"value": interval.value, "low": interval.low, "high": interval.high}
    finite = {name: v if v is not None and math.isfinite(v) else None for name, v in limits.items()}
    return finite | {"n": interval.n}


def batches(rows: int) -> list[Tensor]:
    """Numbers 0 .. rows - 1 in parts of `BATCH`."""
    return list(torch.arange(rows).split(BATCH))
