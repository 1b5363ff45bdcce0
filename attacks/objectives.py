"""What an attack climbs: functions of the readout logits, one value an example."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LOSSES = ("ce", "margin", "dlr")


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


def dlr(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, equations 6 and 7), which no scale or shift of logits alters.

    With o_(1) >= o_(2) >= ... the sorted logits: untargeted (max_{j != y} o_j - o_y) / (o_(1) - o_(3)),
    targeted (o_t - o_y) / (o_(1) - (o_(3) + o_(4)) / 2).

    Parameters
    ----------
    logits : Tensor
        Readout logits o, (N, K) with K >= 3, or K >= 4 where `target` is given.
    y : Tensor
        Labels moved away from, (N,) int64.
    target : Tensor, optional
        Target classes t, (N,) int64.

    Returns
    -------
    Tensor
        (N,), without unit.

    Raises
    ------
    ValueError
        For too few classes.
    """
    least = 3 if target is None else 4
    if logits.shape[1] < least:
        kind = "untargeted" if target is None else "targeted"
        raise ValueError(
            f"loss=dlr needs at least {least} classes when {kind}, the target has {logits.shape[1]}: use loss=margin"
        )
    top = logits.topk(least, dim=1).values
    below = top[:, 2:].mean(dim=1)
    # equal logits: no leader, and no direction either
    spread = (top[:, 0] - below).clamp(min=torch.finfo(logits.dtype).eps)
    if target is None:
        return margin(logits, y) / spread
    own, goal = logits.gather(1, y[:, None]), logits.gather(1, target[:, None])
    return (goal - own).squeeze(1) / spread


def reached(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """(N,) bool: the prediction left `y` or, with a target, equals it."""
    predicted = logits.argmax(dim=1)
    return predicted != y if target is None else predicted == target


def reached_by(confidence: float, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """(N,) bool: the prediction is as asked, and by a `margin` of at least the confidence."""
    return reached(logits, y, target) & (margin(logits, y, target) >= confidence)


def ascent(loss: str, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """The (N,) objective that a gradient-sign attack increases.

    ``ce``: cross-entropy of `y`, or minus the cross-entropy of the target; its gradient vanishes where the
    softmax saturates, as in confident reverse-cross-entropy models. ``margin``: `margin`, which does not.
    ``dlr``: `dlr`, which does not either and is free of the scale of the logits.

    Parameters
    ----------
    loss : str
        Out of `LOSSES`.
    logits, y, target
        As for `margin`.
    """
    if loss == "margin":
        return margin(logits, y, target)
    if loss == "dlr":
        return dlr(logits, y, target)
    if target is None:
        return F.cross_entropy(logits, y, reduction="none")
    return -F.cross_entropy(logits, target, reduction="none")
