"""What an attack climbs: functions of the readout logits, one value an example."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LOSSES = ("ce", "margin")


def margin(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """By how much the attack has won: positive where the goal is reached.

    Untargeted: max_{j != y} o_j - o_y. Targeted: o_t - max_{j != t} o_j.

    Parameters
    ----------
    logits : Tensor
        Readout logits o, (N, K) with K >= 2.
    y : Tensor
        Labels moved away from, (N,) int64; unused where `target` is given.
    target : Tensor, optional
        Target classes t, (N,) int64.

    Returns
    -------
    Tensor
        (N,), in units of the logits.
    """
    own = (y if target is None else target)[:, None]
    mine = logits.gather(1, own).squeeze(1)
    best_other = logits.scatter(1, own, -torch.inf).amax(dim=1)
    return best_other - mine if target is None else mine - best_other


def reached(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """(N,) bool: the prediction left `y` or, with a target, equals it."""
    predicted = logits.argmax(dim=1)
    return predicted != y if target is None else predicted == target


def ascent(loss: str, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """The (N,) objective that a gradient-sign attack increases.

    ``ce``: cross-entropy of `y`, or minus the cross-entropy of the target; its gradient vanishes where the
    softmax saturates, as in confident reverse-cross-entropy models. ``margin``: `margin`, which does not.

    Parameters
    ----------
    loss : str
        ``ce`` or ``margin``.
    logits, y, target
        As for `margin`.
    """
    if loss == "margin":
        return margin(logits, y, target)
    if target is None:
        return F.cross_entropy(logits, y, reduction="none")
    return -F.cross_entropy(logits, target, reduction="none")
