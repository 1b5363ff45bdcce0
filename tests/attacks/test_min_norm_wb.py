"""The minimum-norm attack: closed forms, brute force on a plane, and what every attack promises."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.min_norm_wb import MinNormWhiteBox
from attacks.quasi_newton import QuasiNewton
from attacks.watched import Look

TOY = runpy.run_path(str(Path(__file__).with_name("watched_toy.py")))
ToyWatched = TOY["ToyWatched"]
WIDTH = 0.06  # of the kernels on the plane


class Silent:
    """A linear classifier whose detector gives every image the same score; it knows no clean images."""

    def __init__(self, weight: Tensor, bias: Tensor, score: float = 0.0) -> None:
        self.module = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight), dtype=weight.dtype))
        self.module[1].weight.data, self.module[1].bias.data = weight, bias
        self.classes, self.score, self.threshold, self.scale = len(weight), score, 0.5, 1.0
        self.references, self.reference_labels = weight.new_zeros(0, weight.shape[1]), torch.zeros(0).long()

    def logits(self, x: Tensor) -> Tensor:
        return self.module(x)

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        return Look(self.module(x), x.new_full((len(x),), self.score, dtype=torch.float64), x.flatten(1))

    def limits(self, quantile: float) -> Tensor:
        return torch.full((self.classes,), self.threshold, dtype=torch.float64)


class Plane:
    """Images of two pixels, which are their own embedding: two classes left and right of a slanted line.

    The score is -log of a kernel density. Class 1 has its crowd at the upper right and one stray point amid class 0.
    """

    threshold, scale = 4.0, 4.0

    def __init__(self) -> None:
        self.module = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, dtype=torch.float64))
        self.module[1].weight.data = torch.tensor([[0.0, 0.0], [6.0, 1.0]], dtype=torch.float64)
        self.module[1].bias.data = torch.tensor([0.0, -3.6], dtype=torch.float64)
        crowd = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.07
        right = torch.cat([torch.tensor([[0.8, 0.75]], dtype=torch.float64) + crowd, self._point(0.3, 0.3)])
        self.kernels = [self._point(0.2, 0.3) + crowd, right]
        self.references, self.reference_labels = right[:-1], torch.ones(len(right) - 1).long()

    @staticmethod
    def _point(*values: float) -> Tensor:
        return torch.tensor([values], dtype=torch.float64)

    def logits(self, x: Tensor) -> Tensor:
        return self.module(x)

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        logits, z = self.module(x), x.flatten(1)
        labels = logits.argmax(dim=1) if classes is None else classes
        scores = []
        for point, label in zip(z, labels.tolist(), strict=True):
            exponents = -(point - self.kernels[label]).square().sum(dim=1) / (2 * WIDTH**2)
            scores.append(-exponents.logsumexp(dim=0))
        return Look(logits, torch.stack(scores), z)

    def limits(self, quantile: float) -> Tensor:
        return torch.tensor([0.0, -2.0 + quantile], dtype=torch.float64)

    def nearest(self, x: Tensor, limit: float) -> float:
        """The distance of the nearest point of the box that is class 1 with a score within the limit, on a grid."""
        axis = torch.linspace(0, 1, 501, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        lead = self.module[1](grid)
        grid = grid[lead[:, 1] > lead[:, 0]]
        exponents = torch.stack([-(grid - k).square().sum(dim=1) / (2 * WIDTH**2) for k in self.kernels[1]])
        fit = -exponents.logsumexp(dim=0) <= limit
        return (grid[fit] - x.flatten()).norm(dim=1).min().item()


@pytest.mark.parametrize("norms", [(1.0, 1.0), (300.0, 0.01)])
def test_distance_to_a_hyperplane(norms: tuple[float, float]) -> None:
    """|o_0 - o_1| / ||w_0 - w_1|| where the detector is silent, whatever the scale of the logits."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(64, generator=generator, dtype=torch.float64)
    direction /= direction.norm()
    weight = torch.stack([norms[0] * direction, -norms[1] * direction])
    distance = torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    x = (0.5 + distance[:, None] * direction).reshape(4, 1, 8, 8)
    target = Silent(weight, -weight.sum(dim=1) / 2)  # the boundary goes through mid-grey
    result = MinNormWhiteBox(iterations=60)(target, x)
    assert result.success.all()
    assert (result.l2 >= distance).all()
    assert (result.l2 <= 1.01 * distance).all()


def test_distance_under_the_box() -> None:
    """Half of the pixels are stuck at 0: the nearest point across is found on the others alone."""
    weight = torch.zeros(2, 16, dtype=torch.float64)
    weight[1] = torch.tensor([-1.0, 1.0]).repeat(8)
    target = Silent(weight, torch.tensor([0.0, -2.0], dtype=torch.float64))
    result = MinNormWhiteBox(iterations=60)(target, torch.zeros(1, 1, 4, 4, dtype=torch.float64))
    optimum = 2 / math.sqrt(8)  # over the eight pixels that push upwards
    assert optimum <= result.l2.item() <= 1.01 * optimum
    assert result.x_adv.min() >= 0


@pytest.mark.parametrize("quantile", [None, 0.0])
def test_the_optimum_on_a_plane(quantile: float | None) -> None:
    """Found within 5 % of brute force, both limits at work, past a stray point of class 1 amid class 0."""
    plane = Plane()
    starts = [[0.2, 0.3], [0.25, 0.7], [0.4, 0.05], [0.05, 1.0]]
    x = torch.tensor(starts, dtype=torch.float64).reshape(4, 1, 1, 2)
    result = MinNormWhiteBox(clean_quantile=quantile)(plane, x)
    limit = plane.threshold if quantile is None else plane.limits(quantile)[1].item()
    optimum = torch.tensor([plane.nearest(point, limit) for point in x])
    assert result.success.all()
    assert (result.l2 >= optimum - 0.002).all()  # the grid is that coarse
    assert (result.l2 <= 1.05 * optimum).all()


def test_all_wrong_classes_are_searched() -> None:
    """The nearest hyperplane belongs to the class with the smallest clean logit."""
    weight = torch.zeros(4, 16, dtype=torch.float64)
    weight[1, 0], weight[2, 1], weight[3] = 1.0, 1.0, 100.0
    bias = torch.tensor([0.8, 0.0, 0.0, -820.0], dtype=torch.float64)
    x = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)  # logits 0.8, 0.5, 0.5, -20
    result = MinNormWhiteBox()(Silent(weight, bias), x)
    assert result.predicted.tolist() == [3]
    assert result.l2.item() == pytest.approx(20.8 / 400, rel=0.01)
    assert MinNormWhiteBox(classes=1)(Silent(weight, bias), x).predicted.item() in (1, 2)


def test_targeted() -> None:
    target = ToyWatched()
    x, y = target.images(2)
    goal = (y + 1) % 4
    result = MinNormWhiteBox(targeted=True, iterations=60)(target, x, y, y_target=goal)
    assert result.success.float().mean() > 0.8
    assert torch.equal(result.predicted[result.success], goal[result.success])
    untargeted = MinNormWhiteBox(iterations=60)(target, x, y)
    both = result.success & untargeted.success
    assert (untargeted.l2[both] <= 1.05 * result.l2[both]).all()


def test_successes_are_misclassified_and_within_the_limit() -> None:
    target = ToyWatched()
    x, y = target.images(4)
    loose = MinNormWhiteBox(iterations=60)(target, x, y)
    tight = MinNormWhiteBox(clean_quantile=0.5)(target, x, y)
    limits = target.limits(0.5)
    for result, limit in ((loose, target.threshold), (tight, limits[tight.predicted])):
        look = target.look(result.x_adv)
        fair = (look.logits.argmax(dim=1) != y) & (look.scores <= limit)
        assert torch.equal(result.success, fair)
        assert result.success.all()
        assert result.x_adv.min() >= 0
        assert result.x_adv.max() <= 1
    assert loose.l2.mean() < tight.l2.mean()


def test_batch_mates_do_not_matter() -> None:
    target = ToyWatched(dtype=torch.float64)
    x, _ = target.images(2)
    attack = MinNormWhiteBox(iterations=20, clean_quantile=0.5)
    whole = attack(target, x)
    order = torch.tensor([5, 2, 7])
    part = attack(target, x[order])
    assert (whole.x_adv[order] - part.x_adv).abs().max() < 1e-9
    assert torch.equal(whole.passes[order], part.passes)


def test_gradients_are_counted_and_bounded() -> None:
    assert MinNormWhiteBox().max_passes(10) <= 300
    assert MinNormWhiteBox(targeted=True).max_passes(10) == 120
    target, attack = ToyWatched(), MinNormWhiteBox(iterations=20)
    calls = []
    inner = target.look
    target.look = lambda x, classes=None: calls.append(len(x) * x.requires_grad) or inner(x, classes)  # type: ignore[method-assign, func-returns-value]
    result = attack(target, target.images(2)[0])
    assert (result.passes == attack.max_passes(4)).all()
    assert result.passes.sum() == sum(calls)


def test_what_needs_no_change_is_left_alone() -> None:
    target = ToyWatched()
    x, _ = target.images(2)
    look = target.look(x)
    calm = look.scores < target.threshold - 1
    wrong = (look.logits.argmax(dim=1) + 1) % 4
    result = MinNormWhiteBox()(target, x[calm], wrong[calm])
    assert calm.sum() >= 5
    assert result.success.all()
    assert (result.l2 == 0).all()


def test_failures_are_honest() -> None:
    """Under an alarm that never rests nothing succeeds; what comes back is misclassified at least."""
    weight = torch.stack([torch.ones(16), -torch.ones(16)]).double()
    target = Silent(weight, -weight.sum(dim=1) / 2, score=1.0)
    x = torch.full((2, 1, 4, 4), 0.6, dtype=torch.float64)
    result = MinNormWhiteBox(iterations=30)(target, x)
    assert not result.success.any()
    assert (result.predicted != result.y).all()
    assert result.l2.max() < 2


@pytest.mark.parametrize("broken", ["constant", "masked", "squashed", "clamped"])
def test_broken_detectors_are_broken(broken: str) -> None:
    target = ToyWatched(TOY[broken])
    x, y = target.images(3)
    result = MinNormWhiteBox()(target, x, y)
    assert result.success.float().mean() > 0.9


@pytest.mark.parametrize("broken", ["constant", "cut off"])
def test_a_score_exactly_at_its_limit_is_no_alarm(broken: str) -> None:
    """A detector that never alarms costs nothing, also where its score touches the threshold."""
    target = ToyWatched(TOY["constant"] if broken == "constant" else lambda scores: scores)
    threshold = target.threshold
    if broken == "cut off":
        target.distort = lambda scores: scores.clamp(max=threshold)
    x, y = target.images(3)
    assert (target.look(x).scores <= threshold).all()
    touching = MinNormWhiteBox()(target, x, y)
    target.threshold = threshold + 0.01
    clear = MinNormWhiteBox()(target, x, y)
    assert touching.success.all() and clear.success.all()
    assert touching.l2.mean() <= 1.05 * clear.l2.mean()


def test_a_score_without_a_finite_gradient_does_no_harm() -> None:
    """Where the slope of the score is NaN, the classifier alone tells the way, and the nearest points across."""
    harmless = lambda scores: -1 + (scores * 0).sqrt()  # noqa: E731
    target, silent = ToyWatched(harmless), ToyWatched(lambda scores: scores * 0 - 1)
    target.threshold = silent.threshold = 0.0
    x, y = target.images(3)
    result, clear = MinNormWhiteBox(iterations=60)(target, x, y), MinNormWhiteBox(iterations=60)(silent, x, y)
    assert result.success.all() and clear.success.all()
    assert result.l2.mean() <= 1.05 * clear.l2.mean()


def test_secant_equation() -> None:
    """After a step s the inverse Hessian maps s + c * (change of the gradient) to s, at any c; in each row."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(5, 2, 7, generator=generator, dtype=torch.float64)
    matrix = torch.rand(7, 7, generator=generator, dtype=torch.float64)
    memory, hessian = QuasiNewton(3, points[0]), matrix @ matrix.T
    never, free = torch.zeros(2, dtype=torch.bool), torch.ones(2, 7, dtype=torch.bool)
    for x in points:
        memory.push(x, x @ hessian, never)
    step = points[-1] - points[-2]
    for weight in (torch.tensor([[0.1], [5.0]]).double(), torch.tensor([[2.0], [0.5]]).double()):
        mapped = memory.direction(step + weight * (step @ hessian), free, weight)
        assert torch.allclose(mapped, -step, atol=1e-12)


def test_forgetting_leaves_scaled_descent() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(3, 2, 4, generator=generator, dtype=torch.float64)
    memory = QuasiNewton(5, points[0])
    for x, forget in zip(points, (False, False, True), strict=True):
        memory.push(x, 3 * x, torch.tensor([forget, False]))
    slope, weight = torch.ones(2, 4, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    move = memory.direction(slope, torch.ones(2, 4, dtype=torch.bool), weight)
    assert torch.allclose(move[0] / move[0, 0], slope[0])  # no memory: straight down
    assert torch.allclose(move[1], -slope[1] / 4)  # the Hessian is (1 + 3) times the identity


@pytest.mark.parametrize(
    ("field", "value"), [("clean_quantile", 1.5), ("clean_quantile", -0.1), ("iterations", 0), ("classes", 0)]
)
def test_wrong_fields(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        MinNormWhiteBox(**{field: value})  # type: ignore[arg-type]


def test_needs_a_detector(trained: nn.Module, images: Tensor) -> None:
    with pytest.raises(TypeError, match="works against a classifier and its detector"):
        MinNormWhiteBox()(trained, images)
