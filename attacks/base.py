"""The contract that every attack keeps: what goes in, what comes out, and what stays untouched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from attacks.checks import check_choice, check_classes, check_images, check_logits, check_rows
from attacks.objectives import ascent, reached
from attacks.randomness import TARGET_CLASSES, choose_targets
from attacks.target import Logits, exact_of, frozen, logits_of
from attacks.task import AttackResult, Crafted, Progress, Task, silent

# images that a CPU evaluates at once: what a network makes of more no longer fits its cache
LOOKED_AT = 64


def input_gradient(objective: Tensor, x: Tensor, *, keep: bool = False) -> Tensor:
    """Gradient of the *summed* objective with respect to `x`, so that no row is scaled by its batch.

    Parameters
    ----------
    objective : Tensor
        (n,), one value an example.
    x : Tensor
        The leaf that it depends on, with n rows.
    keep : bool
        Keep the graph for another backward pass.

    Raises
    ------
    ValueError
        The target's logits carry no gradient.
    """
    if not objective.requires_grad:
        raise ValueError(
            "the target's logits carry no gradient to the images: remove no_grad or detach from the target"
        )
    return torch.autograd.grad(objective.sum(), x, retain_graph=keep)[0]


def loss_gradient(loss: str, task: Task, x: Tensor) -> Tensor:
    """Gradient (N, C, H, W) of `objectives.ascent` at the images `x` of all of a task's examples."""

    def step(x: Tensor, rows: Tensor) -> tuple[Tensor]:
        leaf = x.clone().requires_grad_()
        objective = ascent(loss, task.logits(leaf), task.y[rows], task.targets(rows))
        return (input_gradient(objective, leaf),)

    return task.in_parts(step, x, torch.arange(len(x), device=x.device))[0]


def finite_gradient(
    objective: Tensor, x: Tensor, *, fallback: Tensor | None = None, keep: bool = False
) -> Tensor:
    """Gradient of the summed objective where a detector may hide or break its own: always finite.

    Parameters
    ----------
    objective : Tensor
        (n,), one value an example.
    x : Tensor
        The leaf, with n rows.
    fallback : Tensor, optional
        (n,), without the detector's score. A row whose gradient is not finite takes the gradient of this instead:
        also a score with weight 0 spoils a sum, since 0 times infinity is NaN.
    keep : bool
        Keep the graph for another backward pass.

    Returns
    -------
    Tensor
        Shaped as `x`; zeros where there is no gradient, and for values that are still not finite.
    """
    gradient = _gradient_or_zero(objective, x, keep or fallback is not None)
    broken = ~gradient.isfinite().flatten(1).all(dim=1)
    if fallback is not None and broken.any():
        rows = broken.view(-1, *[1] * (x.dim() - 1))
        gradient = torch.where(rows, _gradient_or_zero(fallback, x, keep), gradient)
    return gradient.nan_to_num(0.0, 0.0, 0.0)


def _gradient_or_zero(objective: Tensor, x: Tensor, keep: bool) -> Tensor:
    if not objective.requires_grad:
        return torch.zeros_like(x)
    found = torch.autograd.grad(objective.sum(), x, retain_graph=keep, allow_unused=True)[0]
    return torch.zeros_like(x) if found is None else found


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack; its fields are its hyper-parameters, its call is stateless.

    Row i of the result depends on row i of the input and on (seed, index[i]) alone: batch mates, order and
    sharding do not matter.

    Parameters
    ----------
    targeted : bool
        Aim at a class instead of away from `y`.
    target_class : str
        How a targeted attack picks it: ``random``, ``runner_up`` or ``next``; see `choose_targets`.

    Attributes
    ----------
    needs : frozenset of str
        What it asks of its target: ``logits``, ``detector``, ``detector_gradients``.
    single_step : bool
        Whether it takes one step at most; an attack that does not say so counts as iterated.
    length : tuple of str
        Fields that say how long it works: doubled together they double that, and nothing else changes. Empty where
        there are none. A dot leads into a mapping: ``options.max_iter``.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    single_step: ClassVar[bool] = False
    length: ClassVar[tuple[str, ...]] = ()

    targeted: bool = False
    target_class: str = "random"

    def __post_init__(self) -> None:
        check_choice(self.target_class, TARGET_CLASSES, "target_class")

    @abstractmethod
    def craft(self, task: Task) -> Crafted:
        """Make the adversarial images of a checked, non-empty batch; called with gradients enabled."""

    def max_passes(self, classes: int) -> int | None:
        """Upper bound of `AttackResult.passes` of one image, for an estimate of the time before the attack.

        Parameters
        ----------
        classes : int
            Number of classes K of the target.

        Returns
        -------
        int or None
            None where an attack does not say: nothing is estimated then.
        """
        return None

    def reached(self, logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """(n,) bool: does an image with these logits count as a success?"""
        return reached(logits, y, target)

    def __call__(
        self,
        target: Any,
        x: Tensor,
        y: Tensor | None = None,
        *,
        y_target: Tensor | None = None,
        index: Tensor | Sequence[int] | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> AttackResult:
        """Attack a batch of images.

        Parameters
        ----------
        target : object
            Has ``logits(x)``, or is an ``nn.Module`` or any callable from images to readout logits (N, K). It may
            be a prepared copy, faster than the original, with that as its ``exact``, a ``micro_batch`` and a
            ``slack``: see `attacks.prepare`.
        x : Tensor
            Clean images, (N, C, H, W), float32 or float64 in [0, 1]; N may be 0.
        y : Tensor, optional
            (N,) labels to move away from; default: the target's own predictions on `x` (the original's).
        y_target : Tensor, optional
            (N,) classes to aim at, for a targeted attack; default: by `target_class`.
        index : Tensor or sequence of int, optional
            (N,) numbers of the examples in their data set; default 0..N-1.
        seed : int
            Seed of everything random.
        progress : callable, optional
            Called as ``progress(done, total, active=...)``: work done and in all, examples still under way.

        Returns
        -------
        AttackResult

        Raises
        ------
        TypeError, ValueError
            One line that names what is wrong with the images, labels, target or logits.
        """
        check_images(x)
        # leaves a caller's no_grad and inference_mode: an attack needs gradients
        exact = exact_of(target)
        with torch.inference_mode(False), torch.enable_grad(), frozen(target), frozen(exact):
            task = self._task(target, x.detach().clone(), y, y_target, index, seed, progress)
            if len(x):
                crafted = self.craft(task)
                if not isinstance(crafted, Crafted):
                    name = type(self).__name__
                    raise TypeError(f"{name}.craft must return a Crafted, not a {type(crafted).__name__}")
                return self._verify(exact, task, crafted)
            none = torch.zeros(0, dtype=torch.int64, device=x.device)
            return self._verify(exact, task, Crafted(task.x, none, none.clone()))

    def _task(
        self,
        model: Any,
        x: Tensor,
        y: Tensor | None,
        y_target: Tensor | None,
        index: Tensor | Sequence[int] | None,
        seed: int,
        progress: Progress | None,
    ) -> Task:
        if y_target is not None and not self.targeted:
            raise ValueError("y_target was given to an untargeted attack: build it with targeted=True")
        judge = logits_of(exact_of(model))
        clean = cache(lambda: _evaluate(judge, x))  # an attack that need not know does not look
        classes = (clean() if y is None else _evaluate(judge, x[:1])).shape[1]
        label = clean().argmax(dim=1) if y is None else check_rows(y, x, "y")
        check_classes(label, classes, "y")
        rows = torch.arange(len(x)) if index is None else check_rows(index, x, "index").cpu()
        goal = None
        if y_target is not None:
            goal = check_rows(y_target, x, "y_target")
            check_classes(goal, classes, "y_target")
        elif self.targeted:
            goal = choose_targets(self.target_class, clean(), label, seed, rows)
        return Task(
            logits=logits_of(model),
            x=x,
            y=label,
            target=goal,
            index=rows,
            seed=seed,
            progress=progress or silent,
            clean=clean,
            model=model,
            micro_batch=getattr(model, "micro_batch", None),
            slack=getattr(model, "slack", 0.0),
        )

    def judge(
        self, target: Any, x_adv: Tensor, y: Tensor, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Look at finished images through a target that need not be the one attacked.

        Parameters
        ----------
        target : object
            As in the call.
        x_adv : Tensor
            (n, C, H, W) adversarial images.
        y : Tensor
            (n,) labels moved away from.
        goal : Tensor, optional
            (n,) classes aimed at.

        Returns
        -------
        success, predicted : Tensor
            (n,) bool, and (n,) int64.
        """
        logits = _evaluate(logits_of(target), x_adv)
        return self.reached(logits, y, goal), logits.argmax(dim=1)

    def _verify(self, target: Any, task: Task, crafted: Crafted) -> AttackResult:
        x_adv = crafted.x_adv.detach()
        success, predicted = self.judge(target, x_adv, task.y, task.target)
        change = (x_adv - task.x).flatten(1)
        return AttackResult(
            x_adv=x_adv,
            success=success,
            y=task.y,
            predicted=predicted,
            target=task.target,
            l2=torch.linalg.vector_norm(change, dim=1),
            linf=change.abs().amax(dim=1),
            l0=(change != 0).sum(dim=1).to(x_adv.dtype),
            passes=crafted.passes,
            zero_gradients=crafted.zero_gradients,
        )


def _evaluate(logits: Logits, x: Tensor) -> Tensor:
    """Checked logits (N, K) without a graph; an empty batch never reaches the target (K is then 2)."""
    if not len(x):
        return x.new_zeros(0, 2)
    parts = x.split(LOOKED_AT if x.device.type == "cpu" else len(x))
    with torch.no_grad():
        found = [logits(part) for part in parts]
    for part, out in zip(parts, found, strict=True):
        check_logits(out, len(part))
    return torch.cat(found) if len(found) > 1 else found[0]
