"""The white-box C&W: its optimum on problems that are solved otherwise, and what it counts as a success."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from attacks import CarliniWagner, CarliniWagnerWhiteBox, Look
from tests.attacks.watched_toy import ToyWatched


class Plane:
    """Images are points of the unit square; class 1 right of x0 = 0.5; one Gaussian a class is the density.

    The score is -log N(point; mean of the class, spread^2), a known function, so the nearest misclassified point in
    a dense enough place is a problem in two variables.
    """

    means = torch.tensor([[0.2, 0.35], [0.7, 0.8]], dtype=torch.float64)
    spread = 0.12
    threshold, scale = 1.0, 1.0
    references, reference_labels = means, torch.tensor([0, 1])

    def __init__(self) -> None:
        self.module = nn.Identity()

    def logits(self, x: Tensor) -> Tensor:
        right = 6 * (x.flatten(1)[:, :1] - 0.5)
        return torch.cat([-right, right], dim=1)

    def score(self, points: Tensor, classes: Tensor) -> Tensor:
        squares = (points - self.means[classes]).square().sum(dim=1)
        return squares / (2 * self.spread**2) + math.log(2 * math.pi * self.spread**2)

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        logits, points = self.logits(x), x.flatten(1).double()
        chosen = logits.argmax(dim=1) if classes is None else classes
        return Look(logits, self.score(points, chosen), points)

    def limits(self, quantile: float) -> Tensor:
        # quantiles of a chi-square with two degrees of freedom: -2 ln(1 - q)
        square = -2 * math.log(1 - quantile)
        return torch.full((2,), square / 2 + math.log(2 * math.pi * self.spread**2), dtype=torch.float64)


def points(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).view(-1, 1, 1, 2)


def nearest(plane: Plane, start: Tensor, quantile: float) -> float:
    """The optimum by brute force: the nearest point of a fine grid that is of class 1 and dense enough."""
    axis = torch.linspace(0, 1, 2001, dtype=torch.float64)
    grid = torch.cartesian_prod(axis[axis > 0.5], axis)
    dense = plane.score(grid, torch.ones(len(grid), dtype=torch.int64)) <= plane.limits(quantile)[1]
    return float((grid[dense] - start.flatten()).norm(dim=1).min())


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_the_optimum_of_a_known_density_is_found(quantile: float) -> None:
    plane = Plane()
    x = points((0.2, 0.35), (0.25, 0.9), (0.4, 0.5), (0.1, 0.1))
    attack = CarliniWagnerWhiteBox(
        stage1_iterations=100,
        stage2_iterations=400,
        binary_search_steps=6,
        clean_quantile=quantile,
        abort_early=False,
    )
    result = attack(plane, x)
    optimum = torch.tensor([nearest(plane, row, quantile) for row in x])
    assert result.success.all()
    assert (result.l2 >= optimum - 1e-3).all()  # the grid's spacing is 5e-4
    assert (result.l2 <= 1.05 * optimum).all()
    # a density is asked for, so it costs more than to be misclassified
    assert (result.l2 > (0.5 - x[:, 0, 0, 0]) + 0.01).any()


def test_distances_are_from_the_clean_image_in_both_stages() -> None:
    """Stage 2 starts far away (stage 1 stops wherever it first succeeds) and still comes back to the nearest point."""
    plane, x = Plane(), points((0.45, 0.8))
    settings = {"binary_search_steps": 5, "abort_early": False, "clean_quantile": 0.95}
    far = CarliniWagnerWhiteBox(stage1_iterations=3, stage2_iterations=400, lr=0.3, **settings)(plane, x)
    near = CarliniWagnerWhiteBox(stage1_iterations=200, stage2_iterations=400, **settings)(plane, x)
    assert far.success.all() and near.success.all()
    assert near.l2.item() == pytest.approx(nearest(plane, x[0], 0.95), rel=0.05)
    assert far.l2.item() < 1.3 * near.l2.item()


def test_success_is_misclassified_and_dense() -> None:
    """What C&W alone calls a success is none here: on the boundary, far from every clean point of the class."""
    plane, x = Plane(), points((0.2, 0.35))
    plain = CarliniWagner(max_iterations=200, lr=0.02)(plane, x)
    attack = CarliniWagnerWhiteBox()
    assert plain.success.all()
    success, predicted = attack.judge(plane, plain.x_adv, plain.y)
    assert not success.any() and (predicted == 1).all()
    dense, predicted = attack.judge(plane, points((0.7, 0.8)), torch.tensor([0]))
    assert dense.all() and (predicted == 1).all()
    own, _ = attack.judge(plane, points((0.2, 0.35)), torch.tensor([0]))  # dense, and of its own class
    assert not own.any()


def test_failures_are_the_best_attempt() -> None:
    """One step of each stage: no success is claimed, and the image is nearer to its goal than the clean one."""
    plane, x = Plane(), points((0.2, 0.35), (0.1, 0.1))
    attack = CarliniWagnerWhiteBox(stage1_iterations=1, stage2_iterations=1, lr=1e-3)
    result = attack(plane, x)
    assert not result.success.any()
    aims = torch.ones(2, dtype=torch.int64)

    def penalty(images: Tensor) -> Tensor:
        look = plane.look(images, aims)
        lead = look.logits[:, 1] - look.logits[:, 0]
        return (-lead).relu() + (look.scores - plane.limits(0.5)[1]).relu()

    assert (penalty(result.x_adv) <= penalty(x) + 1e-9).all()


def test_all_aims_are_no_farther_than_the_runner_up() -> None:
    watched = ToyWatched()
    x, y = watched.images(3)
    settings = {"stage1_iterations": 40, "stage2_iterations": 80, "lr": 0.05}
    one = CarliniWagnerWhiteBox(**settings)(watched, x, y)
    every = CarliniWagnerWhiteBox(aim="all", **settings)(watched, x, y)
    assert (every.success | ~one.success).all()
    both = one.success & every.success
    assert both.sum() >= 6
    assert (every.l2[both] <= one.l2[both] + 1e-4).all()
    assert (every.passes > one.passes).all()
    assert (every.passes <= CarliniWagnerWhiteBox(aim="all", **settings).max_passes(4)).all()


def test_rows_do_not_depend_on_their_mates() -> None:
    watched = ToyWatched(dtype=torch.float64)
    x, y = watched.images(2)
    attack = CarliniWagnerWhiteBox(stage1_iterations=20, stage2_iterations=30)
    together = attack(watched, x, y)
    alone = torch.cat([attack(watched, x[i : i + 1], y[i : i + 1]).x_adv for i in range(len(x))])
    assert (together.x_adv - alone).abs().max() < 1e-9


def test_a_score_without_a_finite_gradient_leaves_the_images_finite() -> None:
    """sqrt(0) has an infinite slope, 0 times which is NaN, and Adam never forgets one."""
    watched = ToyWatched(lambda scores: scores + (scores * 0).sqrt())
    x, y = watched.images(2)
    seen: list[Tensor] = []
    look = watched.look
    watched.look = lambda x, classes=None: (seen.append(x.detach()), look(x, classes))[1]  # type: ignore[method-assign]
    CarliniWagnerWhiteBox(stage1_iterations=20, stage2_iterations=20, lr=0.05)(watched, x, y)
    assert all(images.isfinite().all() for images in seen)


@pytest.mark.parametrize(
    "wrong", [{"clean_quantile": 1.0}, {"aim": "some"}, {"stage1_iterations": 0}, {"lr": 0.0}]
)
def test_wrong_settings(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CarliniWagnerWhiteBox(**wrong)


def test_a_target_without_a_detector() -> None:
    with pytest.raises(TypeError, match="CarliniWagnerWhiteBox works against a classifier and its detector"):
        CarliniWagnerWhiteBox()(lambda x: x.flatten(1), points((0.1, 0.2)))
