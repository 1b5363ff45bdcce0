"""Batch norms folded into the convolutions before them, wherever a network's graph allows it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator

from torch import fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold(module: nn.Module, keep: Collection[str] = ()) -> nn.Module:
    """Copy a network, fold its batch norms, freeze it.

    In eval mode a batch norm is an affine map, which a convolution before it can take over: the output stays the same
    up to rounding (about 1e-5), a gradient pass takes about two thirds of the time. Which batch norm follows which
    convolution is read from the graph that `torch.fx` traces; what it cannot trace (control flow that depends on a
    tensor) is entered, child by child. Layers with hooks or parametrizations stay. What no trace tells (that code
    outside of a traced part also looks into it) shows in the logits alone: `prepare` compares them, given an example.

    Parameters
    ----------
    module : nn.Module
        In eval mode; it is not changed.
    keep : collection of str
        Names of layers, or of containers, whose own output somebody looks at: their batch norms stay.

    Returns
    -------
    nn.Module
        Of the same class; only layers within are replaced.

    Raises
    ------
    ValueError
        If it is in training mode: a batch norm is no fixed map then.
    """
    if module.training:
        raise ValueError("fold() needs a network in eval mode: call .eval() first")
    folded = copy.deepcopy(module)
    names = Counter(id(m) for _, m in folded.named_modules(remove_duplicate=False))
    for before_name, norm_name in list(_pairs(folded)):
        before, norm = folded.get_submodule(before_name), folded.get_submodule(norm_name)
        looked_at = any(f"{before_name}.".startswith(f"{name}.") for name in keep)
        # a layer with two names is two places at once: it cannot become two different layers
        twice = max(names[id(before)], names[id(norm)]) > 1
        if looked_at or twice or not (_plain(before, nn.Conv2d) and _plain(norm, nn.BatchNorm2d)):
            continue
        _replace(folded, before_name, fuse_conv_bn_eval(before, norm))  # type: ignore[type-var, arg-type]
        _replace(folded, norm_name, nn.Identity())
    return folded.requires_grad_(False)


def _plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer does what its kind does, and nothing besides."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return isinstance(module, kind) and not hooked and not parametrize.is_parametrized(module)


def _pairs(root: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of a layer and of the batch norm that takes its output and nothing else, each run once a pass."""
    try:
        graph = fx.Tracer().trace(root)
    except Exception:  # a module's own code meets a stand-in for a tensor: it may raise anything
        for name, child in root.named_children():
            yield from ((f"{name}.{a}", f"{name}.{b}") for a, b in _pairs(child))
        return
    runs = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        norm = root.get_submodule(str(node.target))
        frozen_norm = isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
        if frozen_norm and runs[node.target] == runs[before.target] == 1:
            yield str(before.target), str(node.target)


def _replace(root: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(root.get_submodule(parent), last, new)
