"""Faults of an implementation, each found by measurement and none by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.entries import Claim
from benchmarks.families import Family
from benchmarks.judge import SLACK, Verdict

#: A pixel that differs by more between a batch and the image alone is no rounding.
COUPLED = 1e-3
#: Kinds of faults that leave the images themselves right.
SIDE_EFFECTS = frozenset({"gradients", "mode", "frozen"})


@dataclass(frozen=True)
class Fault:
    """What is wrong.

    Attributes
    ----------
    kind
        claim, confidence, blank, unchanged, box, budget, finite, worse, coupled; gradients, mode, frozen, weights.
    text
        In a few words, with the numbers.
    """

    kind: str
    text: str

    @property
    def wrong_result(self) -> bool:
        """Whether the images or what is said of them are wrong, not only the model's state."""
        return self.kind not in SIDE_EFFECTS


def image_faults(family: Family, verdict: Verdict) -> list[Fault]:
    """Faults that the returned images and claims show."""
    claimed, n = verdict.claimed, len(verdict.claimed)
    real = verdict.finite & ~verdict.blank & ~verdict.unchanged
    short = claimed & real & (verdict.lead >= -SLACK) & (verdict.lead < family.confidence - SLACK)
    found = [
        ("finite", ~verdict.finite, "with NaN or infinity"),
        ("box", verdict.finite & ~verdict.boxed, "outside [0, 1]"),
        ("budget", verdict.finite & ~verdict.within, "outside the ball"),
        ("unchanged", claimed & verdict.unchanged & (verdict.lead < 0), "unchanged, claimed as successes"),
        ("claim", claimed & real & (verdict.lead < -SLACK), "claimed as successes, the model denies it"),
        ("confidence", short, f"claimed as successes below the confidence of {family.confidence:g}"),
    ]
    if family.keeps_best:
        worse = verdict.finite & ~verdict.blank & (verdict.lead < verdict.clean_lead - SLACK)
        found.append(("worse", worse, "further from the goal than the clean image"))
    faults = [Fault(kind, f"{int(rows.sum())} of {n} {text}") for kind, rows, text in found if rows.any()]
    if verdict.blank.any():
        counted = int((verdict.blank & claimed).sum())
        tail = f", {counted} of them claimed as successes" if counted else ""
        faults.append(Fault("blank", f"{int(verdict.blank.sum())} of {n} come back blank{tail}"))
    return faults


class ModelState:
    """A model's modes, flags, weights and gradients; `faults` tells what of it has changed."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        for parameter in model.parameters():
            parameter.grad = None
        self.modes = [module.training for module in model.modules()]
        self.flags = [parameter.requires_grad for parameter in model.parameters()]
        self.values = [value.detach().clone() for value in model.state_dict().values()]

    def faults(self) -> list[Fault]:
        """What an attack left behind."""
        found = []
        held = [p for p in self.model.parameters() if p.grad is not None]
        if held:
            found.append(Fault("gradients", f"leaves gradients on {len(held)} parameters"))
        if self.modes != [module.training for module in self.model.modules()]:
            found.append(Fault("mode", "changes the mode of the model"))
        if self.flags != [parameter.requires_grad for parameter in self.model.parameters()]:
            found.append(Fault("frozen", "changes requires_grad of the parameters"))
        now = self.model.state_dict().values()
        if not all(torch.equal(a, b) for a, b in zip(self.values, now, strict=True)):
            found.append(Fault("weights", "changes weights or buffers of the model"))
        return found


def coupling_faults(
    attack: Callable[[Tensor, Tensor, Tensor | None], Claim],
    x: Tensor,
    y: Tensor,
    goal: Tensor | None,
    alone: int = 8,
) -> list[Fault]:
    """Attack rows alone and in the batch: with the model in float64, the same images have to come out.

    Parameters
    ----------
    attack
        Starts from the same random numbers at each call.
    alone
        So many images, from the first to the last, are also attacked one by one.
    """
    together = attack(x, y, goal).x_adv.detach()
    for row in torch.linspace(0, len(x) - 1, min(alone, len(x))).long().tolist():
        part = slice(row, row + 1)
        own = y[part], None if goal is None else goal[part]
        single = attack(x[part], *own).x_adv.detach()
        gap = _gap(single, together[part])
        # one run with rounding put in on purpose: a search that rounding alone moves as far tells nothing
        if gap > COUPLED and gap > 10 * _gap(
            single, attack(_rounded(x[part], single.dtype), *own).x_adv.detach()
        ):
            far = [float((image - x[part]).norm()) for image in (together[part], single)]
            where = f"L2 {far[0]:.4g} among {len(x)}, {far[1]:.4g} alone, a pixel by {gap:.2g}"
            text = f"an image depends on its batch mates: {where}"
            return [Fault("coupled", text)]
    return []


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().nan_to_num(torch.inf).max())


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Images moved by a rounding of `dtype`, towards mid-grey."""
    return x + 4 * torch.finfo(dtype).eps * (0.5 - x)


class InFloat64(nn.Module):
    """A model whose passes run in float64, also for a library that makes float32 of its images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, C, H, W) to logits (n, K) of their dtype."""
        logits: Tensor = self.model(x.double())
        return logits.to(x.dtype)
