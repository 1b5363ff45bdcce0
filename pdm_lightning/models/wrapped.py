"""Any network as a classifier with an embedding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pdm_lightning.models.classifier import Classifier
from pdm_lightning.models.head import (
    averaged,
    find_head,
    is_linear,
    linear_layers,
    logits_of,
    of_this_thread,
    width,
)
from pdm_lightning.models.probabilities import logarithm, undone

#: Modules of PyTorch's that have quantised layers.
_QUANTISED = re.compile(r"torch\.(ao\.)?nn\.(\w+\.)*quantized\b")


class WrappedClassifier(Classifier):
    """Any classifier network; its embedding is the output of one of its layers, or the input of its head.

    Built by :meth:`Classifier.wrap`, which see.

    Parameters
    ----------
    module, embedding, num_classes, readout, mean, std
        See :meth:`Classifier.wrap`.
    negate
        With a reverse readout: the network's own output is the readout, and the loss sees its negative. A network that
        was trained directly then starts with the predictions that it had, and its module can be used without this
        class. False: its output is the raw logits.
    """

    #: How outputs become logits, see `pdm_lightning.models.probabilities.undone`; None before the first pass.
    undo: str | None

    def __init__(
        self,
        module: nn.Module,
        embedding: str | None = None,
        num_classes: int | None = None,
        readout: str = "direct",
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        negate: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        _check(module)
        self._setup(width(module) if num_classes is None else num_classes, readout, mean, std)
        names = [name for name, _ in module.named_modules() if name]
        if embedding is None and not linear_layers(module):
            raise ValueError(
                "the network has no linear layer whose input could be the embedding: name the layer whose output is, "
                f"embedding='NAME' (model.embedding=NAME): e.g. {', '.join(names[-8:])}"
            )
        if embedding is not None and embedding not in names:
            raise ValueError(f"the network has no layer {embedding!r}: choose e.g. {', '.join(names[-12:])}")
        self.module, self.embedding = module, embedding
        self.found, self.undo = "", None
        self.negate = negate and readout == "reverse"

    @property
    def tapped(self) -> tuple[str, ...]:
        """The embedding layer, where one is named; what goes into the head, no faster copy changes."""
        return () if self.embedding is None else (f"module.{self.embedding}",)

    @property
    def speaks(self) -> str:
        """The readout of the network alone: "direct" or "reverse"."""
        return "direct" if self.negate else self.readout

    def centre(self, x: Tensor) -> Tensor:
        """Scale images to what the network sees, in the precision of its weights.

        Raises
        ------
        ValueError
            If mean or std are of another number of channels.
        """
        x = super().centre(x)
        wanted = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), x.dtype)
        return x if x.dtype == wanted else x.to(wanted)

    def locate(self, x: Tensor) -> None:
        """Find the head, for whom passes of its own through the network are needed."""
        self._look(self.centre(x))

    def embed_and_raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give embeddings (N, d) and raw logits (N, K); a softmax at the network's end is undone.

        Raises
        ------
        ValueError
            If the layer is not found or does not run once, the network's output is not (N, K), or the images'
            channels do not fit.
        """
        x = self.centre(x)
        name = self._look(x)
        layer, caught = self.module.get_submodule(name), list[tuple[Any, Any]]()
        note = _output if self.embedding is not None else _input_and_output
        # hooked for this call alone: a hook that stays would point to the original after a deep copy
        handle = layer.register_forward_hook(
            of_this_thread(lambda _layer, *passed: caught.append(note(*passed))), with_kwargs=True
        )
        try:
            output = logits_of(self.module(x))
        finally:
            handle.remove()
        z, out = caught[0] if len(caught) == 1 else (None, output)
        if not isinstance(z, Tensor):
            what = f"ran {len(caught)} times" if len(caught) != 1 else f"gives a {type(z).__name__}"
            raise ValueError(
                f"layer {name!r} {what}: name one that gives a tensor, once a pass: embedding='NAME'"
            )
        if output.shape[1] != self.num_classes:
            raise ValueError(
                f"the network's output is {tuple(output.shape)}, not (N, {self.num_classes}): "
                f"mend its head, or give num_classes={output.shape[1]}"
            )
        z = averaged(z, layer) if self.embedding is None else z.flatten(1)
        if self.undo:
            output = averaged(out, layer) if self.undo == "head" else logarithm(output)
        return z, -output if self.negate else output

    def _look(self, x: Tensor) -> str:
        """Name of the layer that is looked at; the first pass of images tells, and the first one with another head."""
        if self.undo is None or (self.embedding is None and not _stands(self.module, self.found)):
            found = find_head(self.module, x) if self.embedding is None else ""
            self.undo, self.found = undone(self.module, x, found), found
        return self.found if self.embedding is None else self.embedding


def _stands(module: nn.Module, name: str) -> bool:
    try:
        return bool(name) and is_linear(module.get_submodule(name))
    except AttributeError:
        return False


def _input_and_output(args: Any, kwargs: Any, output: Any) -> tuple[Any, Any]:
    return args[0] if args else kwargs["input"], output


def _output(_args: Any, _kwargs: Any, output: Any) -> tuple[Any, None]:
    return _copied(output), None  # an activation in place may follow


def _copied(output: Any) -> Any:
    return output.clone() if isinstance(output, Tensor) else output


def _check(module: nn.Module) -> None:
    """Refuse what has no layers to look into, or no gradients."""
    if not isinstance(module, nn.Module):
        raise ValueError(f"a {type(module).__name__} is no network: wrap an nn.Module")
    parts = list(module.modules())
    if any(isinstance(part, torch.jit.ScriptModule) for part in parts):
        raise ValueError(
            "the network is TorchScript, whose layers cannot be looked into: wrap the network that it was made of"
        )
    dtypes = {p.dtype for p in module.parameters()}
    if dtypes & {torch.int8, torch.uint8} or any(_QUANTISED.match(type(part).__module__) for part in parts):
        raise ValueError(
            "the network is quantised, and gradients and densities of embeddings need floats: wrap the network that it "
            "was made of"
        )
    halves = dtypes & {torch.float16, torch.bfloat16}
    if halves:
        raise ValueError(
            f"the network's weights are {str(halves.pop()).removeprefix('torch.')}, and gradients and densities of "
            "embeddings need float32: call module.float() first"
        )
