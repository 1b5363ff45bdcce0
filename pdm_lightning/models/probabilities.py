"""Networks that end with a softmax: the logits that it was taken of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pdm_lightning.models.head import FEW, averaged, logits_of, looking, of_this_thread

#: Sums of rounded probabilities differ from 1 by less.
_NEAR = 1e-3


def undone(module: nn.Module, x: Tensor, head: str) -> str:
    """How a network's outputs become logits, where they are probabilities or their logarithms.

    Parameters
    ----------
    module
        In whatever mode; it is asked in eval mode, and left as it was.
    x
        (N, C, H, W) as the network takes them; the first two are passed.
    head
        Name of its head; "" where it is not known.

    Returns
    -------
    {"", "head", "log"}
        They are logits already; the head's own output is; their logarithm is.
    """
    caught: list[Any] = []
    hook = of_this_thread(lambda _layer, _inputs, output: caught.append(output.clone()))
    handle = module.get_submodule(head).register_forward_hook(hook) if head else None
    try:
        with looking(module), torch.no_grad():
            out = logits_of(module(x.detach()[:FEW].clone()))
    finally:
        if handle is not None:
            handle.remove()
    likely = [how for how, p in (("log", out), ("", out.exp())) if _sums_to_one(p)]
    if not likely:
        return ""
    if len(caught) == 1:
        own = averaged(caught[0], module.get_submodule(head)).softmax(dim=1)
        p = out if likely[0] else out.exp()
        if own.shape == p.shape and torch.allclose(own, p, rtol=_NEAR, atol=_NEAR):
            return "head"
    return likely[0]


def _sums_to_one(p: Tensor) -> bool:
    return bool((p >= 0).all()) and bool(((p.sum(dim=1) - 1).abs() <= _NEAR).all())


def logarithm(p: Tensor) -> Tensor:
    """Logits of probabilities (N, K); those that are rounded to 0 count as the smallest number."""
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()
