"""Where a network's embedding is: the input of the last linear layer on the way to its logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import RLock, get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

#: So many images show which layer it is.
_FEW = 2
#: A network's mode is changed while it is looked into.
_LOOKING = RLock()


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Linear layers, and convolutions of one pixel (SqueezeNet's head), by name, in the order of registration."""
    return {name: layer for name, layer in module.named_modules() if is_linear(layer)}


def is_linear(layer: nn.Module) -> bool:
    """Whether a layer is linear, or a convolution of one pixel."""
    if isinstance(layer, _ConvNd):
        return set(layer.kernel_size) == {1} and layer.groups == 1
    return isinstance(layer, nn.Linear)


def width(module: nn.Module) -> int:
    """Classes of a network that has not run yet: outputs of the linear layer that was registered last.

    Raises
    ------
    ValueError
        If it has none.
    """
    layers = list(linear_layers(module).values())
    if not layers:
        raise ValueError("the network has no linear layer that tells its classes: give num_classes=")
    last = layers[-1]
    return last.out_features if isinstance(last, nn.Linear) else int(last.out_channels)  # type: ignore[arg-type]


def logits_of(output: Any) -> Tensor:
    """Logits (N, K) of a network's output: a tensor, or an object with ``logits`` (Hugging Face, Inception).

    Raises
    ------
    ValueError
        If it is neither.
    """
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, Tensor) or found.dim() != 2:
        what = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(output).__name__
        raise ValueError(
            f"the network's output is {what}, not logits (N, K): wrap a module that returns them"
        )
    return found


def averaged(inputs: Tensor, layer: nn.Module, *, keep: bool = False) -> Tensor:
    """Embeddings (N, d) of what goes into a linear layer, the mean over the positions that it looks at one by one.

    A linear layer and a mean commute: where the positions' logits are averaged, these embeddings lead to them.

    Parameters
    ----------
    inputs
        (N, ..., d) for a linear layer, (N, d, ...) for a convolution.
    layer
        Which of the two it is.
    keep
        Keep the dimensions.
    """
    places = range(1, inputs.dim() - 1) if isinstance(layer, nn.Linear) else range(2, inputs.dim())
    return inputs.mean(dim=tuple(places), keepdim=keep) if places else inputs


def find_head(module: nn.Module, x: Tensor) -> str:
    """Find the layer whose output becomes the logits: the last linear one that runs and leads to them.

    Every linear layer's output is cut out of the gradient's graph, so that a gradient of the logits reaches those
    outputs alone between which and the logits no further linear layer stands. Of these it is the only one with an
    output a class, if what follows it treats all classes alike: where its outputs change places, the logits do. A
    temperature or a softmax may follow; other weights may not. Where it looks at several positions, the logits are
    their mean.

    Parameters
    ----------
    module
        In whatever mode; it is asked in eval mode, and left as it was.
    x
        (N, C, H, W) as the network takes them; the first two are passed.

    Returns
    -------
    str
        Its name, as in ``module.named_modules()``.

    Raises
    ------
    ValueError
        If there is none or more than one, or the logits are not finite.
    """
    layers, calls = linear_layers(module), list[tuple[str, Tensor]]()
    with looking(module), torch.inference_mode(False), torch.enable_grad():
        few = x.detach()[:_FEW].clone()
        with _hooked({layer: partial(_cut, calls, name) for name, layer in layers.items()}):
            raw = logits_of(module(few.clone()))
        if not bool(torch.isfinite(raw).all()):
            raise ValueError(_broken(module))
        same = [name for name, out in calls if out.shape == raw.shape and torch.equal(out, raw)]
        if same:
            return same[-1]
        outs = [out for _, out in calls]
        reached = (
            torch.autograd.grad(raw.sum(), outs, allow_unused=True) if outs and raw.requires_grad else ()
        )
        last = [call for call, gradient in zip(calls, reached, strict=False) if gradient is not None]
        of_classes = {name: out for name, out in last if out.shape[_classes(layers[name])] == raw.shape[1]}
        heads = [name for name in layers if name in of_classes]
        if outs and not raw.requires_grad:
            told = "no gradient of the logits comes through the network's forward (no_grad or detach in it?)"
        elif len(heads) == 1:
            told = _odd(module, few, raw, heads[0], of_classes[heads[0]])
        else:
            told = _advice(heads)
        if told:
            raise ValueError(f"{told}: {_some(module)}")
        return heads[0]


def _odd(module: nn.Module, few: Tensor, raw: Tensor, name: str, out: Tensor) -> str:
    """Why what goes into the only layer that leads to the logits is no embedding; "" where it is one."""
    layer = module.get_submodule(name)
    with _hooked({layer: lambda _layer, _inputs, out: out.roll(1, dims=_classes(layer))}):
        turned = logits_of(module(few.clone()))
    if not torch.allclose(turned, raw.roll(1, dims=1), rtol=1e-4, atol=1e-6):
        if not torch.allclose(logits_of(module(few.clone())), raw, rtol=1e-4, atol=1e-6):
            return "the network gives other logits for the same images (random numbers in its forward?)"
        return f"what follows layer {name!r} treats classes differently (weights, a batch norm?)"
    if out.numel() > raw.numel() and not _is_mean(module, few, layer):
        return f"layer {name!r} looks at several positions, and the logits are no mean over them"
    return ""


def _is_mean(module: nn.Module, few: Tensor, layer: nn.Module) -> bool:
    """Whether all positions that a layer looks at count alike; asked of positive outputs, for a ReLU may follow."""
    leaves: list[Tensor] = []

    def lift(_layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        leaves.append((output.detach().abs() + 1).requires_grad_())
        return leaves[-1].clone()

    with _hooked({layer: lift}):
        raw = logits_of(module(few.clone()))
    if len(leaves[0]) != len(raw):
        return False
    # the sum of the logits alone would be constant behind a softmax
    of = (raw * torch.arange(1, raw.shape[1] + 1).to(raw)).sum()
    (gradient,) = torch.autograd.grad(of, leaves[:1])
    apart = gradient - averaged(gradient, layer, keep=True)
    return bool(apart.abs().max() <= 1e-3 * gradient.abs().max())


def _classes(layer: nn.Module) -> int:
    """Dimension of a linear layer's outputs."""
    return -1 if isinstance(layer, nn.Linear) else 1


def _cut(
    calls: list[tuple[str, Tensor]], name: str, _layer: nn.Module, _inputs: Any, output: Tensor
) -> Tensor:
    """Note a layer's output, as a leaf; what goes on is a copy, which an activation in place may overwrite."""
    leaf = output.detach().requires_grad_()
    calls.append((name, leaf))
    return leaf.clone()


def of_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Have a hook heed this thread's passes alone: others may run through the same layers meanwhile."""
    thread = get_ident()
    return lambda *args: hook(*args) if get_ident() == thread else None


@contextmanager
def _hooked(hooks: Mapping[nn.Module, Callable[..., Tensor]]) -> Iterator[None]:
    """Have hooks change the outputs of layers for a while."""
    handles = [layer.register_forward_hook(of_this_thread(hook)) for layer, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _advice(heads: list[str]) -> str:
    if heads:
        return f"{len(heads)} linear layers lead to the logits side by side ({', '.join(heads)})"
    return "no linear layer leads to the network's logits"


def _some(module: nn.Module) -> str:
    leaves = [name for name, layer in module.named_modules() if name and not list(layer.children())]
    return f"name the layer whose output is the embedding, embedding='NAME': e.g. {', '.join(leaves[-8:])}"


def _broken(module: nn.Module) -> str:
    odd = [name for name, value in module.state_dict().items() if not bool(torch.isfinite(value).all())]
    why = (
        f"weights {odd[0]!r} are not either: take others"
        if odd
        else "its weights are: look at mean, std and the images"
    )
    return f"the network's logits are not finite: {why}"


@contextmanager
def looking(module: nn.Module) -> Iterator[None]:
    """Look into a network, in eval mode and one thread at a time; each part's own mode comes back."""
    with _LOOKING:
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode
