"""The nearest adversarial image, in tens of gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import Attack, Crafted, Task, input_gradient
from attacks.checks import check_choice, check_number
from attacks.geometry import NORMS
from attacks.min_norm_steps import Steps, StepsL2, StepsLinf
from attacks.objectives import margin, reached_by
from attacks.penalty import Nearest
from attacks.randomness import uniform


@dataclass(frozen=True)
class Walk:
    """Where a walk begins and where it goes.

    Parameters
    ----------
    length : int
        Gradients at most.
    rival : int or None
        None: to whichever wrong class is nearest. A number r: to the class with the r-th largest clean logit but the
        label's. A targeted attack goes to its target in every walk.
    along : float
        Begin at x + along * (x* - x), where x* is the nearest success so far (without one: the last iterate): 0 is
        the clean image, 2 lies beyond the boundary, -1 on the far side.
    noise : float
        L2 norm of a random change of the beginning, as a share of ||x* - x||_2.
    """

    length: int
    rival: int | None = None
    along: float = 0.0
    noise: float = 0.0


PLANS = {
    ("l2", "fast"): (Walk(24), Walk(24, along=-1.0)),
    ("l2", "best"): (
        *(Walk(36, rival) for rival in (None, 0, 1, 2, 3)),
        Walk(36, along=-1.0),
        Walk(36, along=2.0),
        *(Walk(36, rival, along=1.0, noise=noise) for noise in (2.0, 4.0) * 5 for rival in (None, 0, 1, 2)),
    ),
    ("linf", "fast"): (Walk(48),),
    ("linf", "best"): (
        *(Walk(48, rival) for rival in (None, 0, 1)),
        Walk(48, along=2.0),
        Walk(48, along=-1.0),
    ),
}
# temperature of the maximum over wrong classes at the beginning of a walk, as a share of the clean lead; then it falls
SOFTNESS = 0.2
# margin beyond the confidence that a walk heads for, and that a success keeps, as shares of the clean lead: beyond
# rounding. The former grows with every iterate in a row that falls short
AIM, HELD, OVERSHOOT = 5e-4, 1e-4, 1.4
# a walk ends where so many gradients in a row promised no distance below a share of the nearest so far: of its own
# successes and, once it is warm, of all
PATIENCE, STALL, WARM, HOPELESS = 3, 0.997, 8, 1.15
# an example leaves after so many walks in a row of which none came nearer by this share
CONTENT, NEARER = 9, 2e-3

STATE = ("rows", "x", "clean", "goal", "unit", "walk", "age", "outside", "idle", "record", "before", "vain")


@dataclass(frozen=True, kw_only=True)
class MinNorm(Attack):
    """Minimise ||x' - x|| subject to margin(x') >= confidence and x' in the box.

    A walk goes along the boundary. Each step heads for the image nearest to x at which a model of the margin around
    the iterate reaches the confidence: linear as in DeepFool (Moosavi-Dezfooli et al. 2016), with the bias to x of
    FAB (Croce and Hein 2020), and for L2 with a quasi-Newton estimate of how the boundary bends. Steps fade with a
    cosine, as in DDN (Rony et al. 2019) and FMN (Pintor et al. 2021); in Linf they are signs, in a ball whose radius
    follows the model. Wrong classes compete through a smooth maximum that hardens meanwhile. A walk ends where the
    model promises nothing nearer. The boundary has many nearest points, so there are further walks: to the likeliest
    wrong classes, from beyond the nearest success, from the far side of the image. The nearest success of all
    iterates counts; for an example without any, the iterate with the largest margin.

    Parameters
    ----------
    norm : str
        ``l2`` or ``linf``.
    confidence : float
        Logit margin that a success has to reach, >= 0.
    quality : str
        ``fast``: 48 gradients at most; ``best``: 1692 (L2), of which mostly 100 to 300 are used, or 240 (Linf).
    """

    norm: str = "l2"
    confidence: float = 0.0
    quality: str = "fast"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.norm, NORMS, "norm")
        check_number(self.confidence, "confidence")
        check_choice(self.quality, ("fast", "best"), "quality")

    def plan(self, classes: int) -> list[Walk]:
        """The walks of an example; without those to a rival where there is none so far down, or a target."""
        # of two classes the other is the nearest anyway
        rivals = 0 if self.targeted or classes == 2 else classes - 1
        walks = PLANS[self.norm, self.quality]
        return [walk for walk in walks if walk.rival is None or walk.rival < rivals]

    def max_passes(self, classes: int) -> int:
        """One gradient an iterate."""
        return sum(walk.length for walk in self.plan(classes))

    def reached(self, logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """(n,) bool: the prediction is as asked, and by a margin of at least the confidence."""
        return reached_by(self.confidence, logits, y, target)

    def craft(self, task: Task) -> Crafted:
        """One gradient of every example under way, one step; finished examples leave the batch."""
        walks = _Walks(self, task)
        total = self.max_passes(task.clean_logits.shape[1])
        for iteration in range(total):
            if len(walks.rows):  # no target is ever shown an empty batch
                walks.step()
            task.progress((iteration + 1) * len(task.x), total * len(task.x), active=len(walks.rows))
            if not len(walks.rows):
                break
        return Crafted(walks.best.x_adv, walks.best.passes, walks.best.zero_gradients)


class _Walks:
    """The walks under way, one an example, on flat images (n, D); records of all examples."""

    def __init__(self, attack: MinNorm, task: Task) -> None:
        self.attack, self.task, self.best = attack, task, Nearest(task)
        logits = task.clean_logits.to(task.x.dtype)
        self.plan = attack.plan(logits.shape[1])
        others = logits.scatter(1, task.y[:, None], -torch.inf)
        self.rivals = others.argsort(dim=1, descending=True, stable=True)
        won = attack.reached(logits, task.y, task.target)
        self.best.distance[won] = 0.0
        self.rows = (~won).nonzero().squeeze(1)
        self.clean = task.x.flatten(1)[self.rows]
        self.x = self.clean
        lead = margin(logits, task.y, task.target)[self.rows] - attack.confidence
        self.unit = lead.abs().maximum(_rounding(logits)[self.rows] / HELD).nan_to_num(1.0, 1.0, 1.0)
        self.record, self.before = torch.full_like(lead, torch.inf), torch.full_like(lead, torch.inf)
        self.walk, self.age, self.outside, self.idle, self.vain = (
            torch.zeros_like(self.rows) for _ in range(5)
        )
        self.goal = self._goals()
        self.steps: Steps = StepsL2(self.x) if attack.norm == "l2" else StepsLinf(self.x)

    def step(self) -> None:
        """Look at the iterates, then go on, or to where the next walk begins."""
        short, gradient = self._visit()
        aim = short + AIM * self.unit * OVERSHOOT ** self.outside.to(self.unit)
        self.x, promised = self.steps.take(self.x, self.clean, gradient, aim, self._fade())
        hopeless = torch.where(self.age >= WARM, HOPELESS * self.best.distance[self.rows], torch.inf)
        self.idle = torch.where(promised > hopeless.minimum(STALL * self.record), self.idle + 1, 0)
        ended = (self.idle >= PATIENCE) | (self.age >= self._each("length"))
        if ended.any():
            self._turn(ended)

    def _visit(self) -> tuple[Tensor, Tensor]:
        """Keep the nearest successes; returns what the walks' goals lack in margin (n,), and its gradients (n, D)."""
        heat = (SOFTNESS * self.unit * self._fade().square()).clamp(min=1e-12)
        y = self.task.y[self.rows]
        lead, won, gradient = self.task.in_parts(self._look, self.x, self.goal, y, heat)
        asked = self.attack.confidence + self.task.slack
        hit = won >= asked + HELD * self.unit
        distance = self.steps.distance(self.x, self.clean)
        self.best.offer(self.rows, self._images(self.x), distance, won, hit)
        self.best.count(self.rows, gradient)
        self.record = torch.where(hit, self.record.minimum(distance), self.record)
        self.outside = torch.where(hit, 0, self.outside + 1)
        self.age = self.age + 1
        return (asked - lead).nan_to_num(0.0, 0.0, 0.0), gradient

    def _look(self, x: Tensor, goal: Tensor, y: Tensor, heat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Leads of the walks' goals and margins of the attack's, (n,); gradients of minus the former, smoothed."""
        leaf = self._images(x).requires_grad_()
        logits = self.task.logits(leaf).to(leaf.dtype)
        away = goal < 0
        own = torch.where(away, y, goal)[:, None]
        mine, others = logits.gather(1, own).squeeze(1), logits.scatter(1, own, -torch.inf)
        ahead = mine - heat * (others / heat[:, None]).logsumexp(dim=1)
        gradient = input_gradient(torch.where(away, ahead, -ahead), leaf).nan_to_num(0.0, 0.0, 0.0)
        lead = margin(logits.detach(), own.squeeze(1))
        won = margin(logits.detach(), y, goal if self.attack.targeted else None)
        return torch.where(away, lead, -lead), won, gradient.flatten(1)

    def _images(self, x: Tensor) -> Tensor:
        return x.detach().reshape(-1, *self.task.x.shape[1:])

    def _turn(self, ended: Tensor) -> None:
        """Begin the next walks; examples that have none leave."""
        self.walk, found = self.walk + ended, self.best.distance[self.rows]
        vain = ~(found < (1 - NEARER) * self.before)
        self.vain = torch.where(ended, torch.where(vain, self.vain + 1, 0), self.vain)
        self.before = torch.where(ended, found, self.before)
        going = (self.walk < len(self.plan)) & (self.vain < CONTENT)
        for name in STATE:
            setattr(self, name, getattr(self, name)[going])
        fresh = ended[going]
        self.steps.turn(going, fresh, found[going])
        self.goal = torch.where(fresh, self._goals(), self.goal)
        self.record = torch.where(fresh, torch.inf, self.record)
        self.x = torch.where(fresh[:, None], self._starts(), self.x)
        for name in ("age", "idle", "outside"):
            setattr(self, name, torch.where(fresh, 0, getattr(self, name)))

    def _starts(self) -> Tensor:
        """(n, D), where the present walks begin."""
        found = self.best.distance[self.rows].isfinite()[:, None]
        change = torch.where(found, self.best.x_adv[self.rows].flatten(1), self.x) - self.clean
        noise = torch.zeros_like(change)
        for number, walk in enumerate(self.plan):
            here = (self.walk == number).nonzero().squeeze(1)
            if walk.noise and len(here):
                index = self.task.index[self.rows[here].cpu()]
                noise[here] = 2 * uniform(self.clean[here], self.task.seed, index, f"walk {number}") - 1
        length = self._each("noise") * torch.linalg.vector_norm(change, dim=1)
        share = length / torch.linalg.vector_norm(noise, dim=1).clamp(min=1e-12)
        start = self.clean + self._each("along")[:, None] * change + share[:, None] * noise
        return start.clamp(0, 1)

    def _goals(self) -> Tensor:
        """(n,) int64, the classes that the walks go to; -1: away from the label."""
        if self.task.target is not None:
            return self.task.target[self.rows]
        places = [-1 if walk.rival is None else walk.rival for walk in self.plan]
        place = torch.tensor(places, device=self.x.device)[self.walk]
        rival = self.rivals[self.rows].gather(1, place.clamp(min=0)[:, None]).squeeze(1)
        return torch.where(place < 0, place, rival)

    def _fade(self) -> Tensor:
        """(n,), falls from 1 to 0 over a walk."""
        return 0.5 * (1 + torch.cos(math.pi * self.age / self._each("length")))

    def _each(self, name: str) -> Tensor:
        """(n,) a number of the present walks."""
        values = [float(getattr(walk, name)) for walk in self.plan]
        return torch.tensor(values, device=self.x.device, dtype=self.x.dtype)[self.walk]


def _rounding(logits: Tensor) -> Tensor:
    """(n,) by how much a margin of two logits (n, K) may differ between two evaluations of one image."""
    return 8 * torch.finfo(logits.dtype).eps * logits.abs().amax(dim=1)
