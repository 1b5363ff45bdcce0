"""Square attack: a random search with square windows, on scores and logits alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.base import Crafted, Task
from attacks.checks import check_choice, check_count, check_number
from attacks.geometry import NORMS
from attacks.joint import Best, JointAttack, joint_margin
from attacks.objectives import margin, reached
from attacks.randomness import generators

# of 10,000 queries, those at which the share of pixels in a window halves (Andriushchenko et al. 2020, section 5)
HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)
TILE = 5  # side of the tiles that an L2 search starts from
BLOCK = 100  # queries whose random numbers are drawn at once

Propose = Callable[[Tensor, Tensor, int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Square(JointAttack):
    """Random search on the joint margin, without any gradient (Andriushchenko et al. 2020).

    Each query changes one square window of the perturbation and keeps it where `joint_margin` does not fall. So the
    search also walks over plateaus, such as those of a saturated score. L-infinity (algorithm 2): it starts with
    vertical stripes of +-eps and sets a window to +-eps, one sign a channel. L2 (algorithm 3): it starts with tiles of
    bumps and moves the budget of a second window, and what is unused, into the first. Two things differ from the
    published L2 attack: its tiles form a grid of 5 x 5, here each has a side of 5 pixels; its windows have an odd side
    of at least 3, here any side down to 1.

    `AttackResult.passes` counts queries (forward passes); no gradient is taken. The clean image is looked at first,
    which counts as none: it is the result where it is a success already, or where nothing better is found.

    Parameters
    ----------
    norm : str
        ``linf`` or ``l2``.
    eps : float
        Radius of the ball, in units of the pixel range; 0 is allowed.
    queries : int
        Images that are looked at for each example, at most.
    p : float
        Share of the pixels in the first windows, in (0, 1]; halved at fixed parts of the search.
    early_stop : bool
        End an example at its first success; else it goes on to raise its joint margin.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "detector"})

    length: ClassVar[tuple[str, ...]] = ("queries",)

    norm: str = "linf"
    eps: float = 0.1
    queries: int = 1000
    p: float = 0.8
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.norm, NORMS, "norm")
        check_number(self.eps, "eps")
        check_count(self.queries, "queries")
        check_number(self.p, "p", strict=True)
        if self.p > 1:
            raise ValueError(f"p must lie in (0, 1], not {self.p!r}: it is a share of the pixels")

    def max_passes(self, classes: int) -> int:
        """One query an image that is looked at."""
        return self.queries

    @torch.no_grad()
    def craft(self, task: Task) -> Crafted:
        """All examples at once, one query each a step; finished examples leave the batch."""
        best = Best(task)
        rows = torch.arange(len(task.x), device=task.x.device)
        rows, _ = self._look(task, best, rows, task.x)
        now, height = task.x.clone(), torch.full_like(best.margin, -torch.inf)
        dice = _Dice(task, 5 + task.x.shape[1])
        start, propose = (_stripes, _window) if self.norm == "linf" else (_tiles, _bump)
        for query in range(self.queries):
            if not len(rows):
                break
            if query == 0:
                candidate = (task.x + self.eps * start(task)).clamp(0, 1)[rows]
            else:
                side = window_side(self.p, query / self.queries, task.x.shape[-2:])
                candidate = self._candidate(propose, task.x[rows], now[rows], side, dice.throw(rows, query))
            best.passes[rows] += 1
            going, lead = self._look(task, best, rows, candidate)
            kept = lead >= height[rows]
            now[rows[kept]], height[rows[kept]] = candidate[kept], lead[kept]
            rows = going
            task.progress((query + 1) * len(now), self.queries * len(now), active=len(rows))
        task.progress(self.queries * len(now), self.queries * len(now), active=0)
        return Crafted(best.x_adv, best.passes, best.zero_gradients)

    def _look(self, task: Task, best: Best, rows: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Look at images of the examples `rows`: the examples that go on, and the joint margins of all."""
        watched = self.watched(task)
        look, y, target = watched.look(images), task.y[rows], task.targets(rows)
        wrong, hit = reached(look.logits, y, target), self.hit(look, watched, y, target)
        best.offer(rows, images, margin(look.logits, y, target), look.scores, wrong, hit)
        return rows[~hit] if self.early_stop else rows, joint_margin(look, watched, y, target)

    def _candidate(self, propose: Propose, x: Tensor, now: Tensor, side: int, dice: Tensor) -> Tensor:
        """(n, C, H, W) images to look at next; those that would be the same again have their signs turned."""
        shape = x.shape
        change = ((now - x) / self.eps if self.eps else now - x).flatten(2)
        places = [window_pixels(side, shape[-2:], *dice[:, i : i + 2].unbind(1)) for i in (0, 2)]
        signs = torch.where(dice[:, 5:, None] < 0.5, -1.0, 1.0).to(x)
        turned = dice[:, 4, None, None] < 0.5

        def image(signs: Tensor) -> Tensor:
            return (x + self.eps * propose(change, signs, side, turned, *places).view(shape)).clamp(0, 1)

        candidate = image(signs)
        same = (candidate == now).flatten(1).all(dim=1)
        return torch.where(same[:, None, None, None], image(-signs), candidate)


class _Dice:
    """Numbers uniform in [0, 1) for every example and query, from (seed, index) alone."""

    def __init__(self, task: Task, count: int) -> None:
        self.generators = list(generators(task.seed, task.index, "square"))
        self.count, self.device = count, task.x.device
        self.block = torch.zeros(len(task.x), BLOCK, count, dtype=torch.float64)

    def throw(self, rows: Tensor, query: int) -> Tensor:
        """(n, count) numbers of the examples `rows`, whose rows never come back once they are left out."""
        if (query - 1) % BLOCK == 0:
            for row in rows.tolist():
                torch.rand(
                    self.block.shape[1:],
                    generator=self.generators[row],
                    dtype=torch.float64,
                    out=self.block[row],
                )
        return self.block[rows.cpu(), (query - 1) % BLOCK].to(self.device)


def window_side(p: float, part: float, size: Sequence[int]) -> int:
    """Side of the window, in pixels, after a part of the search in [0, 1).

    Parameters
    ----------
    p : float
        Share of the pixels in the first window.
    part : float
        Part of the queries that are done.
    size : sequence of int
        Height and width of the image.
    """
    share = p / 2 ** sum(part * 10_000 >= at for at in HALVINGS)
    height, width = size
    return min(max(round((share * height * width) ** 0.5), 1), height, width)


def window_pixels(side: int, size: Sequence[int], top: Tensor, left: Tensor) -> Tensor:
    """(n, 1, side ** 2) numbers of the pixels in windows placed by two (n,) numbers in [0, 1)."""
    height, width = size
    span = torch.arange(side, device=top.device)
    row = (top * (height - side + 1)).long()[:, None] + span
    column = (left * (width - side + 1)).long()[:, None] + span
    return (row[:, :, None] * width + column[:, None, :]).flatten(1)[:, None]


def _stripes(task: Task) -> Tensor:
    """(N, C, 1, W) signs: vertical stripes."""
    channels, _, width = task.x.shape[1:]
    return _signs(task, (channels, 1, width))


def _tiles(task: Task) -> Tensor:
    """(N, C, H, W) tiles of bumps with random signs; L2 norm 1."""
    channels, height, width = task.x.shape[1:]
    down, across = -(-height // TILE), -(-width // TILE)
    signs = _signs(task, (channels, down, across))
    tiles = torch.kron(signs, bump(TILE, TILE).to(task.x))[..., :height, :width]
    return tiles / torch.linalg.vector_norm(tiles, dim=(1, 2, 3), keepdim=True)


def _signs(task: Task, shape: tuple[int, ...]) -> Tensor:
    drawn = [torch.rand(shape, generator=g) < 0.5 for g in generators(task.seed, task.index, "square start")]
    return torch.where(torch.stack(drawn), -1.0, 1.0).to(task.x)


def _window(change: Tensor, signs: Tensor, side: int, turned: Tensor, place: Tensor, other: Tensor) -> Tensor:
    """L-infinity: set a window of the perturbation (n, C, H * W), in units of eps, to the signs (n, C, 1)."""
    place = place.expand(-1, change.shape[1], -1)
    return change.scatter(2, place, signs.expand(place.shape))


def _bump(change: Tensor, signs: Tensor, side: int, turned: Tensor, place: Tensor, other: Tensor) -> Tensor:
    """L2: move the budget of the window `other`, and what is unused of 1, into the window `place`."""
    channels = change.shape[1]
    place, other = place.expand(-1, channels, -1), other.expand(-1, channels, -1)
    half = side // 2
    halves = torch.cat([bump(side, half), -bump(side, side - half)], dim=1).to(change)
    shape = torch.where(turned, halves.T.flatten(), halves.flatten())
    rest = change.scatter(2, other, 0.0).scatter(2, place, 0.0)
    moved = change.square().sum(dim=2, keepdim=True) - rest.square().sum(dim=2, keepdim=True)
    unused = (1 - change.square().sum(dim=(1, 2), keepdim=True)).clamp(min=0)
    added, old = signs * _unit(shape), _unit(change.gather(2, place))
    cancel = (added + old == 0).all(dim=2, keepdim=True)  # a window of one pixel: the budget would be lost
    direction = _unit(torch.where(cancel, added, added + old))
    moved_norm = (moved.clamp(min=0) + unused / channels).sqrt()
    return rest.scatter(2, place, direction * moved_norm)


def _unit(v: Tensor) -> Tensor:
    """Each row along the last dimension at length 1; a zero stays zero."""
    return torch.nn.functional.normalize(v, dim=-1, eps=torch.finfo(v.dtype).tiny)


def bump(height: int, width: int) -> Tensor:
    """(height, width) float64, highest in the middle: eta of Andriushchenko et al. 2020, equation 2.

    eta[r, s] = sum_{i=0}^{M} 1 / (n + 1 - i)^2 with n = height // 2 and
    M = n - max(|r - height // 2 - 1|, |s - width // 2 - 1|); r and s count from 1.
    """
    n = height // 2
    r, s = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    far = torch.maximum(r.abs()[:, None], s.abs()[None, :])
    terms = torch.tensor([1 / (n + 1 - i) ** 2 for i in range(n + 1)], dtype=torch.float64).cumsum(0)
    return terms[n - far]
