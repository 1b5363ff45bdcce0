"""Looking at finished images through the original model, whatever the library says of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.entries import Claim
from benchmarks.families import Family

#: Rounding of one step in float32: so far outside the box or the ball is inside.
ROUNDING = 1e-6
#: Rounding of logits in float32, whose size batch and layout decide.
SLACK = 1e-3


@dataclass(frozen=True)
class Verdict:
    """n judged images, each tensor (n,).

    Attributes
    ----------
    claimed
        bool: the library counts it as a success.
    won
        bool: it is one. Finite, in [0, 1], in the ball, not blank, misclassified as asked, by the confidence.
    lead
        Margin of logits towards what was asked for; above 0: misclassified as asked.
    clean_lead
        The same of the clean image.
    l2, linf, l0
        Distances to the clean images.
    finite, boxed, within, blank, unchanged
        bool: what the names say; `within` the ball.
    """

    claimed: Tensor
    won: Tensor
    lead: Tensor
    clean_lead: Tensor
    l2: Tensor
    linf: Tensor
    l0: Tensor
    finite: Tensor
    boxed: Tensor
    within: Tensor
    blank: Tensor
    unchanged: Tensor


def lead(logits: Tensor, y: Tensor, goal: Tensor | None) -> Tensor:
    """Margin (n,): largest other logit minus the label's, or the goal's minus the largest other."""
    own = (y if goal is None else goal)[:, None]
    others = logits.scatter(1, own, -torch.inf).amax(dim=1)
    margin = others - logits.gather(1, own).squeeze(1)
    return margin if goal is None else -margin


def judge(
    model: nn.Module, family: Family, x: Tensor, y: Tensor, goal: Tensor | None, claim: Claim
) -> Verdict:
    """Judge images by a model in eval mode that the library never had.

    Raises
    ------
    ValueError
        If the images' shape is not that of the clean ones.
    """
    x_adv = claim.x_adv.detach()
    if x_adv.shape != x.shape:
        raise ValueError(f"returned images of shape {tuple(x_adv.shape)}, not {tuple(x.shape)}")
    flat, change = x_adv.flatten(1), (x_adv.to(x.dtype) - x).flatten(1)
    finite = flat.isfinite().all(dim=1)
    boxed = ((flat >= -ROUNDING) & (flat <= 1 + ROUNDING)).all(dim=1)
    with torch.no_grad():
        margin = lead(model(x_adv.to(x.dtype).nan_to_num(0.0, 0.0, 0.0)), y, goal)
        clean = lead(model(x), y, goal)
    margin = torch.where(finite, margin, -torch.inf)
    linf = change.abs().amax(dim=1)
    within = torch.ones_like(finite) if family.eps is None else linf <= family.eps + ROUNDING
    unchanged = (change == 0).all(dim=1)
    blank = _constant(flat) & ~_constant(x.flatten(1))
    reached = (margin > 0) & (margin >= family.confidence - SLACK)
    claimed = (margin > 0) & ~unchanged if claim.success is None else claim.success.bool().to(y.device)
    return Verdict(
        claimed=claimed,
        won=reached & finite & boxed & within & ~blank,
        lead=margin,
        clean_lead=clean,
        l2=torch.linalg.vector_norm(change, dim=1),
        linf=linf,
        l0=(change != 0).sum(dim=1),
        finite=finite,
        boxed=boxed,
        within=within,
        blank=blank,
        unchanged=unchanged,
    )


def _constant(flat: Tensor) -> Tensor:
    return flat.amax(dim=1) == flat.amin(dim=1)
