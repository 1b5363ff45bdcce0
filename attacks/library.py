"""Attacks of the Adversarial Robustness Toolbox (ART), against classifier and detector together."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attacks.base import Crafted, Task
from attacks.checks import check_choice, check_count, check_number
from attacks.extra_class import extra_class
from attacks.geometry import NORMS
from attacks.joint import Best, JointAttack
from attacks.objectives import margin, reached
from attacks.randomness import generators
from attacks.square import Square
from attacks.watched import Look, Watched

ROUNDING = 1e-6  # a library computes in float32: so far outside the ball still counts as inside
# these walk from a misclassified image to the clean one, and without the first would draw noise at random
STARTED = ("HopSkipJump", "BoundaryAttack")
SET_HERE = ("targeted", "verbose", "norm", "eps")
# these begin with steps of 2 eps and halve them (Croce and Hein 2020, section 3); ART's own default knows no eps
HALVING = ("AutoProjectedGradientDescent", "AutoConjugateGradient")


@dataclass(frozen=True, kw_only=True)
class LibraryAttack(JointAttack):
    """An evasion attack of ART on the classifier of K + 1 classes, see `attacks.ExtraClass`.

    It aims at the most likely wrong classes of the clean image, never at the alarm. Every image that the method looks
    at is judged, not only what it returns. Inside a ball the one kept is misclassified with the lowest score; without
    (``eps: null``), the nearest success. Methods that walk from another image to the clean one get the first from a
    search by `Square` in the whole box, and aim at its class. Each example is attacked on its own, with ART's random
    numbers seeded by (seed, index).

    `AttackResult.passes` counts gradients, or, for a method that takes none, queries.

    Parameters
    ----------
    method : str
        Name of the class in ``art.attacks.evasion``.
    norm : str
        ``linf`` or ``l2``: of the ball, or of the distance; handed to methods that take it.
    eps : float or None
        Radius of the ball, handed to methods that take it; None: as near as the method comes.
    classes : int
        How many wrong classes to aim at, the most likely first; without effect where targeted or walking from
        another image: then it is one.
    budget : int
        Passes for an example, at most; there it ends with the best image so far.
    options : mapping
        Further arguments of the method, by name.
    early_stop : bool
        End an example at its first success inside the ball; without effect where `eps` is None.

    Raises
    ------
    ImportError
        ART is not installed; in one line, on the call.
    ValueError
        ART knows no such attack or argument, or finds a value unfit; in one line, on the call.
    """

    # most methods end by their own count as well: twice the budget alone would change nothing
    length: ClassVar[tuple[str, ...]] = ("budget", "options.max_iter")

    method: str
    norm: str = "linf"
    eps: float | None = 0.1
    classes: int = 3
    budget: int = 1000
    options: Mapping[str, Any] = field(default_factory=dict)
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.norm, NORMS, "norm")
        if self.eps is not None:
            check_number(self.eps, "eps", strict=True)
        check_count(self.classes, "classes")
        check_count(self.budget, "budget")
        own = sorted(set(self.options) & set(SET_HERE))
        if own:
            raise ValueError(f"options must not hold {', '.join(own)}: set attack.{own[0]} itself")

    def max_passes(self, classes: int) -> int:
        """The budget."""
        return self.budget

    def craft(self, task: Task) -> Crafted:
        """One example after the other, and for each one class after the other."""
        watched, best = self.watched(task), Best(task)
        for row, generator in enumerate(generators(task.seed, task.index, self.method)):
            spy = _Spy(self, task, watched, best, row)
            with _seeded(int(torch.randint(2**31, (), generator=generator))), suppress(_Finished):
                if self.method in STARTED:
                    self._walk(spy, task)
                else:
                    for goal in self._goals(task, row):
                        self._generate(spy, goal)
            best.passes[row] += spy.passes
            task.progress(row + 1, len(task.x), active=len(task.x) - row - 1)
        return Crafted(best.x_adv, best.passes, best.zero_gradients)

    def _goals(self, task: Task, row: int) -> Tensor:
        """(m,) classes to aim at."""
        if task.target is not None:
            return task.target[row : row + 1]
        others = task.clean_logits[row].scatter(0, task.y[row], -torch.inf)
        return others.topk(min(self.classes, len(others) - 1)).indices

    def _walk(self, spy: _Spy, task: Task) -> None:
        """Run a method from an image that a quarter of the budget finds; where it finds none, the example fails."""
        search = Square(targeted=task.target is not None, eps=1.0, queries=max(1, self.budget // 4))
        index, goal = task.index[spy.row.cpu()], task.targets(spy.row)
        found = search(task.model, spy.x[None], task.y[spy.row], y_target=goal, index=index, seed=task.seed)
        spy.looks += int(found.passes)
        start, spy.goal = _numpy(found.x_adv), found.predicted[0]
        with torch.no_grad():
            reached = spy(torch.from_numpy(start)).argmax() == spy.goal.cpu()
        if found.success and reached:  # a start that float32 moved off its class would be replaced by noise
            self._generate(spy, spy.goal, x_adv_init=start)

    def _generate(self, spy: _Spy, goal: Tensor, **extra: Any) -> None:
        """Aim the method at one class; what it finds lies with the spy."""
        kind, spy.goal = _art(self.method), goal
        try:
            attack = kind(_estimator(spy), **self._arguments(kind))
            made = attack.generate(_numpy(spy.x[None]), goal[None].cpu().numpy(), **extra)
        except (TypeError, ValueError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"art.attacks.evasion.{self.method}: {line}") from error
        with torch.no_grad():
            spy(torch.from_numpy(made))

    def _arguments(self, kind: type) -> dict[str, Any]:
        """What the method is built with: the options, and of ours what it takes."""
        known = set(inspect.signature(kind).parameters)
        ours = {"targeted": True, "verbose": False, "norm": math.inf if self.norm == "linf" else 2}
        if self.eps is not None:
            ours["eps"] = self.eps
            if self.method in HALVING:
                ours["eps_step"] = 2 * self.eps
        unknown = sorted(set(self.options) - known)
        if unknown or "targeted" not in known:
            what = f"no argument {', '.join(unknown)}" if unknown else "no targets, which this adapter needs"
            raise ValueError(f"it knows {what}; its arguments are {', '.join(sorted(known))}")
        return {key: value for key, value in ours.items() if key in known} | dict(self.options)


@dataclass(frozen=True, kw_only=True)
class LibraryQueryAttack(LibraryAttack):
    """An attack of ART that takes no gradient, such as HopSkipJump: logits and scores are enough for it."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "detector"})


class _Finished(BaseException):
    """Leaves a library's loop: no `Exception`, so that none of its handlers stops it."""


class _Spy(nn.Module):
    """The classifier of K + 1 classes for one example; it judges and counts all that passes through it."""

    goal: Tensor  # () int64, the class that the method aims at

    def __init__(self, attack: LibraryAttack, task: Task, watched: Watched, best: Best, row: int) -> None:
        super().__init__()
        # inside a tuple: a library may move modules that belong to this one
        self.held, self.attack, self.best = (watched,), attack, best
        self.row, self.x = torch.tensor([row], device=task.x.device), task.x[row]
        self.classes = task.clean_logits.shape[1]
        self.looks = self.gradients = 0

    @property
    def passes(self) -> int:
        """Gradients, or looks while there is none."""
        return self.gradients or self.looks

    def forward(self, x: Tensor) -> Tensor:
        """(n, K + 1) float32 logits on the device of `x`, see `ExtraClass`; leaves the library when all is done."""
        if self.looks and self.passes + len(x) > self.attack.budget:
            raise _Finished
        watched, images = self.held[0], x.to(self.x)
        look = watched.look(images, self.goal.expand(len(x)))
        self.looks += len(x)
        self._judge(images.detach(), look, watched)
        logits = extra_class(look, watched).float()
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits.to(x.device)

    def _count(self, gradient: Tensor) -> None:
        self.gradients += len(gradient)

    @torch.no_grad()
    def _judge(self, x_adv: Tensor, look: Look, watched: Watched) -> None:
        """Offer the best of these images, if one lies in the ball and the box."""
        attack, goal = self.attack, self.goal.expand(len(x_adv))
        order = math.inf if attack.norm == "linf" else 2
        far = torch.linalg.vector_norm((x_adv - self.x).flatten(1), ord=order, dim=1).double()
        inside = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(dim=1)
        if attack.eps is not None:
            inside &= far <= attack.eps + ROUNDING
        wrong, hit = reached(look.logits, goal, goal), attack.hit(look, watched, goal, goal)
        lead = margin(look.logits, goal, goal).double()
        cost = far if attack.eps is None else look.scores.double()
        n = _first(inside, wrong, hit, lead, cost)
        if n is not None:
            self.best.offer(self.row, x_adv[n], lead[n], cost[n], wrong[n], hit[n])
        if attack.early_stop and attack.eps is not None and bool(self.best.hit[self.row]):
            raise _Finished


def _first(inside: Tensor, wrong: Tensor, hit: Tensor, lead: Tensor, cost: Tensor) -> slice | None:
    """The one of n images that `Best` would keep: the cheapest success, else the cheapest misclassified one."""
    for group, value in ((hit, cost), (wrong, cost), (torch.ones_like(hit), -lead)):
        pool = (inside & group).nonzero().squeeze(1)
        if len(pool):
            n = int(pool[value[pool].nan_to_num(torch.inf, torch.inf, -torch.inf).argmin()])
            return slice(n, n + 1)
    return None


def _art(method: str) -> type:
    """ART's attack of this name."""
    try:
        import art.attacks.evasion as evasion
    except ImportError as error:
        raise ImportError(
            "attacks of the Adversarial Robustness Toolbox need it installed: pip install 'pdm-lightning[library]'"
        ) from error
    kind = getattr(evasion, method, None)
    if not isinstance(kind, type):
        raise ValueError(f"art.attacks.evasion has no attack {method!r}: see its documentation for the names")
    return kind


def _numpy(images: Tensor) -> Any:
    return images.cpu().float().numpy()


def _estimator(spy: _Spy) -> Any:
    """ART's view of the classifier, on the CPU: the spy moves images to the target and logits back."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=spy,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(spy.x.shape),
        nb_classes=spy.classes + 1,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Give a library that draws from the global generators these numbers, and put the generators back."""
    import numpy

    before = random.getstate(), numpy.random.get_state()  # noqa: NPY002 - the generator that ART draws from
    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)  # torch.manual_seed reseeds accelerators too
            yield
    finally:
        random.setstate(before[0])
        numpy.random.set_state(before[1])  # noqa: NPY002
