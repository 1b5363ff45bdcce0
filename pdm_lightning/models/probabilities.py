"""Networks that end with a softmax: the logits that it was taken of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pdm_lightning.models.head import averaged, logits_of, looking, of_this_thread

#: So many images of noise show what a network puts out.
_MANY = 8


def undone(module: nn.Module, x: Tensor, head: str) -> str:
    """How a network's outputs become logits, where they are probabilities or their logarithms.

    It is asked of noise, so that the answer is the network's, whichever images come first.

    Parameters
    ----------
    module
        In whatever mode; it is asked in eval mode, and left as it was.
    x
        (N, C, H, W) as the network takes them.
    head
        Name of its head; "" where it is not known.

    Returns
    -------
    {"", "head", "log"}
        They are logits already; the head's own output is; their logarithm is.
    """
    noise = torch.rand(_MANY, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    caught: list[Tensor] = []
    hook = of_this_thread(lambda _layer, _inputs, output: caught.append(output.clone()))
    handle = module.get_submodule(head).register_forward_hook(hook) if head else None
    try:
        with looking(module), torch.no_grad():
            out = logits_of(module(noise))
    finally:
        if handle is not None:
            handle.remove()
    if _sums_to_one(out):
        how, logs = "log", logarithm(out)
    elif _sums_to_one(out.exp()):
        how, logs = "", out
    else:
        return ""
    if len(caught) == 1 and _is_softmax(logs, averaged(caught[0], module.get_submodule(head))):
        return "head"
    return how


def _sums_to_one(p: Tensor) -> bool:
    near = max(1e-4, 2 * torch.finfo(p.dtype).eps)
    return bool((p >= 0).all()) and bool(((p.sum(dim=1) - 1).abs() <= near).all())


def _is_softmax(logs: Tensor, own: Tensor) -> bool:
    """Whether logarithms of probabilities differ among classes as logits do, where they are not rounded to 0."""
    if own.shape != logs.shape:
        return False
    top = logs.argmax(dim=1, keepdim=True)
    logs, own = (value - value.gather(1, top) for value in (logs, own))
    seen = logs > math.log(torch.finfo(logs.dtype).tiny)
    return bool((logs - own)[seen].abs().max() <= 1e-2 * own[seen].abs().max())


def logarithm(p: Tensor) -> Tensor:
    """Logits of probabilities (N, K); those that are rounded to 0 count as the smallest number."""
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()
