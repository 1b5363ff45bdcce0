"""The adaptive gradient attacks, against a small classifier with a density detector, honest and broken."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.base import AttackResult
from attacks.bim import BIM
from attacks.geometry import Ball
from attacks.joint_pgd import JointPGD
from attacks.mimicry import Mimicry
from attacks.objectives import ascent
from attacks.orthogonal_pgd import OrthogonalPGD
from attacks.selective_pgd import SelectivePGD
from attacks.watched_pgd import Climb, Run, WatchedPGD

TOY = runpy.run_path(str(Path(__file__).with_name("watched_toy.py")))
toy = TOY["ToyWatched"]

KINDS = pytest.mark.parametrize("kind", [SelectivePGD, OrthogonalPGD, JointPGD, Mimicry])
NORMS = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.4)])


def hit(target: Any, result: AttackResult) -> Tensor:
    """Fooled and unflagged, asked anew."""
    look = target.look(result.x_adv)
    goal = look.logits.argmax(1) != result.y
    if result.target is not None:
        goal = look.logits.argmax(1) == result.target
    return goal & (look.scores <= target.threshold)


@KINDS
@NORMS
@pytest.mark.parametrize("targeted", [False, True])
def test_result_keeps_the_ball_and_tells_the_truth(kind: Any, norm: str, eps: float, targeted: bool) -> None:
    target = toy()
    x, _ = target.images(6)
    before = x.clone()
    attack = kind(norm=norm, eps=eps, iterations=15, restarts=2, targeted=targeted)
    result = attack(target, x, seed=1)
    assert torch.equal(x, before)
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    assert (result.linf if norm == "linf" else result.l2).max() <= eps + 1e-6
    assert torch.equal(result.success, hit(target, result))
    assert torch.equal(result.predicted, target.logits(result.x_adv).argmax(1))
    assert 0 < result.success.sum() < len(x)
    assert result.passes.max() == attack.max_passes(4)
    assert (result.passes <= attack.max_passes(4)).all()
    assert (result.zero_gradients <= result.passes).all()


def plain_pgd(target: Any, x: Tensor, loss: str, eps: float, iterations: int) -> Tensor:
    """L2 PGD on the classifier alone."""
    y, ball, x_adv = target.logits(x).argmax(1), Ball("l2", eps), x.clone()
    for _ in range(iterations):
        x_adv.requires_grad_()
        gradient = torch.autograd.grad(ascent(loss, target.logits(x_adv), y).sum(), x_adv)[0]
        length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        x_adv = ball.project(x_adv.detach() + 2.5 * eps / iterations * gradient / length, x)
    return x_adv


@KINDS
@NORMS
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_as_strong_as_without_the_detector(kind: Any, norm: str, eps: float, loss: str) -> None:
    """What the gray-box version gets past the detector by luck, the adaptive attack gets past it too."""
    target = toy()
    x, _ = target.images(26)  # 104 in all
    if norm == "linf":
        gray = BIM(eps=eps, loss=loss, iterations=15, step=2.5 * eps / 15)(target, x).x_adv
    else:
        gray = plain_pgd(target, x, loss, eps, 15)
    look, clean = target.look(gray), target.logits(x).argmax(1)
    lucky = (look.logits.argmax(1) != clean) & (look.scores <= target.threshold)
    # mimicry climbs something else, and needs the steps to get there
    options = {} if kind is Mimicry else {"loss": loss, "iterations": 15, "restarts": 2}
    result = kind(norm=norm, eps=eps, **options)(target, x)
    assert lucky.any()
    assert (lucky & ~result.success).sum() < 0.01 * len(x)
    assert result.success.sum() >= 1.5 * lucky.sum()


@pytest.mark.parametrize(
    ("broken", "attack"),
    [
        ("constant", SelectivePGD(eps=0.2, iterations=10)),
        ("constant", OrthogonalPGD(eps=0.2, iterations=10)),
        ("constant", JointPGD(eps=0.2, iterations=10)),
        ("constant", Mimicry(eps=0.2, iterations=10)),
        ("masked", Mimicry(eps=0.2)),
        ("squashed", SelectivePGD(eps=0.2, iterations=30)),
        ("squashed", OrthogonalPGD(eps=0.2, iterations=30)),
        ("clamped", Mimicry(eps=0.2)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_broken_detectors_are_broken(broken: str, attack: WatchedPGD) -> None:
    """A detector that is no better than none, or that hides its gradient, falls as often as the honest one."""
    target, honest = toy(TOY[broken]), toy()
    x, _ = target.images(8)
    assert attack(target, x).success.float().mean() >= 0.95
    fooled = BIM(eps=0.2, iterations=20, loss="margin")(honest, x)
    assert hit(honest, fooled).float().mean() < 0.5  # the detector, unbroken, does its work


@pytest.mark.parametrize("kind", [SelectivePGD, OrthogonalPGD, JointPGD])
def test_a_score_without_a_finite_gradient_does_no_harm(kind: Any) -> None:
    """sqrt(0) has an infinite slope, 0 times which is NaN; the classifier is fooled all the same."""
    target = toy(lambda scores: scores + (scores * 0).sqrt())
    x, _ = target.images(5)
    result = kind(eps=0.2, iterations=30, restarts=1)(target, x)
    assert torch.isfinite(result.x_adv).all()
    assert (result.predicted != result.y).float().mean() > 0.9


@KINDS
@NORMS
@pytest.mark.parametrize("targeted", [False, True])
def test_batch_mates_do_not_matter(kind: Any, norm: str, eps: float, targeted: bool) -> None:
    target = toy(dtype=torch.float64)
    x = target.images(3)[0]
    attack = kind(norm=norm, eps=eps, iterations=8, restarts=2, targeted=targeted)
    whole = attack(target, x, index=range(100, 112), seed=5)
    order = torch.tensor([5, 2, 11])
    part = attack(target, x[order], index=order + 100, seed=5)
    assert (whole.x_adv[order] - part.x_adv).abs().max() < 1e-9
    assert torch.equal(whole.success[order], part.success)
    assert torch.equal(whole.passes[order], part.passes)


@KINDS
def test_model_is_left_as_it_was(kind: Any) -> None:
    target = toy()
    target.module.train()
    target.module.head.bias.requires_grad_(False)
    target.module.head.weight.grad = torch.full_like(target.module.head.weight, 7.0)
    state = copy.deepcopy(target.module.state_dict())
    x, _ = target.images(2)
    first = kind(iterations=4, restarts=2)(target, x)
    assert torch.equal(kind(iterations=4, restarts=2)(target, x).x_adv, first.x_adv)  # dropout was off
    assert all(m.training for m in target.module.modules())
    assert not target.module.head.bias.requires_grad
    assert (target.module.head.weight.grad == 7).all()
    assert target.module.embed[1].weight.grad is None
    assert all(torch.equal(v, state[k]) for k, v in target.module.state_dict().items())


@KINDS
def test_finished_examples_leave(kind: Any) -> None:
    """Early stopping costs fewer gradients; going on lowers the score of what is won already."""
    target = toy()
    x, _ = target.images(5)
    options = {"eps": 0.14, "iterations": 15, "restarts": 2}
    seen: list[int] = []
    stopped = kind(**options)(target, x, progress=lambda done, total, active: seen.append(active))
    patient = kind(early_stop=False, **options)(target, x)
    assert max(seen) == len(x)
    assert seen[-1] == 0
    assert (stopped.passes[stopped.success] < patient.passes[stopped.success]).all()
    assert (patient.passes == kind(**options).max_passes(4)).all()
    assert (patient.success | ~stopped.success).all()
    won = stopped.success
    lower = target.look(patient.x_adv).scores[won] <= target.look(stopped.x_adv).scores[won]
    assert lower.all()


def test_progress_rises_to_its_total() -> None:
    target = toy()
    calls: list[tuple[int, int]] = []
    JointPGD(iterations=3, restarts=2)(
        target, target.images(2)[0], progress=lambda done, total, active: calls.append((done, total))
    )
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (2 * 4 * 3 * 8, 2 * 4 * 3 * 8)


@pytest.mark.parametrize(("kind", "gradients"), [(SelectivePGD, 1), (OrthogonalPGD, 2), (Mimicry, 1)])
def test_one_forward_pass_serves_every_gradient(kind: Any, gradients: int) -> None:
    """Nothing can be fooled in a ball of radius 0: every step is taken, and every iterate looked at once."""
    target = toy()
    x, _ = target.images(1)
    rows: list[int] = []
    look = target.look
    target.look = lambda x, classes=None: (rows.append(len(x)), look(x, classes))[1]
    result = kind(eps=0.0, iterations=6, restarts=1)(target, x)
    assert (result.passes == 6 * gradients).all()
    references = 1 if kind is Mimicry else 0
    assert rows == [len(x)] * (7 + references + 1)  # the start, six iterates, the verdict
    assert torch.equal(result.x_adv, x)


def test_published_orthogonal_steps_leave_the_other_goal_alone() -> None:
    """To first order, the first step of `strict` does not move the score of the class in view."""
    target = toy(dtype=torch.float64)
    x = target.images(5)[0].clamp(0.05, 0.95)
    aim = target.logits(x).topk(2, dim=1).indices[:, 1]
    step = 1e-6
    for norm in ("linf", "l2"):
        attack = OrthogonalPGD(norm=norm, eps=0.01, iterations=1, restarts=1, step=step, strict=True)
        moved = attack(target, x).x_adv - x
        kept = (
            moved.flatten(1).norm(dim=1) > 0
        )  # the others came no closer, and the clean image is their best
        assert kept.float().mean() > 0.6
        leaf = x.clone().requires_grad_()
        slope = torch.autograd.grad(target.look(leaf, aim).scores.sum(), leaf)[0]
        cosine = torch.cosine_similarity(moved.flatten(1), slope.flatten(1))[kept]
        assert cosine.abs().max() < 1e-5


class Scripted(JointPGD):
    """Walks that end as written in `ENDS`, with the weights they were given."""

    def start(self, run: Run, restart: int) -> Tensor:
        return torch.zeros(3, 1, 1, 1)

    def walk(self, run: Run, start: Tensor, climb: Climb) -> tuple[Tensor, Tensor]:
        STARTS.append(start.flatten().tolist())
        return torch.ones(3, 1, 1, 1), torch.tensor([end[len(WEIGHTS) - 1] for end in ENDS])

    def _climb(self, weight: Tensor) -> Climb:
        WEIGHTS.append(weight.tolist())
        return super()._climb(weight)


# per example: did the walk end fooled? the first is plain PGD
ENDS = [
    (True, True, True, False, True),
    (True, False, False, True, False),
    (False, True, False, True, True),
]
WEIGHTS: list[list[float]] = []
STARTS: list[list[float]] = []


def test_lambda_is_bisected_for_every_example() -> None:
    """x10 or / 10 until both ends are known, then the geometric mean; in units of the target's scale."""
    WEIGHTS.clear()
    STARTS.clear()

    class Watched:
        scale = 2.0

    class Best:
        score = torch.zeros(3, dtype=torch.float64)

    Scripted(searches=5).search(Run(None, Watched(), Best()), 0)  # type: ignore[arg-type]
    weights = torch.tensor(WEIGHTS, dtype=torch.float64) * 2
    expected = [[0, 1, 10, 100, 1000**0.5], [0, 1, 0.1, 0.01, 0.001**0.5], [0, 1, 10, 10**0.5, 10**0.75]]
    assert torch.allclose(weights.T, torch.tensor(expected, dtype=torch.float64))
    # in turn from where plain PGD ended fooled, and from where it began
    assert STARTS == [[0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]]


@KINDS
def test_wrong_use_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="norm must be one of linf, l2"):
        kind(norm="l0")
    with pytest.raises(ValueError, match="restarts must be at least 1"):
        kind(restarts=0)
    with pytest.raises(ValueError, match="step must be finite and > 0"):
        kind(step=0.0)
    with pytest.raises(TypeError, match="works against a classifier and its detector"):
        kind()(toy().module, toy().images(1)[0])


@pytest.mark.parametrize("kind", [SelectivePGD, OrthogonalPGD, JointPGD])
def test_unknown_loss_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="loss must be one of ce, margin, dlr"):
        kind(loss="hinge")
