"""Kernel densities of more kernels than memory holds: made ready class by class, block by block, and forgotten."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from detection import mapped
from detection.density import Densities

ENTRIES = 2**22
"""Entries of a block of kernels in float64: 32 MiB."""


class StreamedDensities(Densities):
    """`Densities` whose kernels stay where and as they are, mapped from a file for example.

    Points are grouped by class. A class's kernels are cast to float64, and moved to the points' device, a block at a
    time; each block is an estimate p_b of its own with M_b of the M kernels, and

        log p(z) = logsumexp_b(log p_b(z) + log M_b) - log M,
        grad log p(z) = sum_b w_b grad log p_b(z),    w_b = softmax_b(log p_b(z) + log M_b).

    A block takes `ENTRIES` float64 numbers, whatever the number of classes and kernels. Values differ from those of
    `Densities` by rounding alone.

    Parameters
    ----------
    kernels : sequence of Tensor
        Per class c the kernels' centres (M_c, d), M_c >= 1, of any float dtype.
    bandwidth : float
        Standard deviation h > 0 of each kernel, in units of the embedding.
    device : torch.device
        Where points lie.
    """

    def __init__(self, kernels: Sequence[Tensor], bandwidth: float, device: torch.device) -> None:
        self._kernels, self._bandwidth, self._device = kernels, bandwidth, device

    @property
    def device(self) -> torch.device:
        """Where points must lie."""
        return self._device

    def evaluate(self, points: Tensor, classes: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Log densities and, where asked for, their derivatives, as `Densities.evaluate`."""
        logs, slopes = points.new_empty(len(points)), torch.empty_like(points) if gradient else None
        counts = classes.bincount()
        groups = classes.argsort(stable=True).split(counts.tolist())
        memory = self._memory(counts.nonzero().flatten().tolist())
        for label, rows in enumerate(groups):
            if not len(rows):
                continue
            logs[rows], found = self._sum(self._blocks(label, memory), points[rows], gradient)
            logs[rows] -= math.log(len(self._kernels[label]))
            if slopes is not None and found is not None:
                slopes[rows] = found
        return logs, slopes

    def leave_one_out(self, label: int) -> Tensor:
        """Log density of the centres of class `label` under the other ones, as `Densities.leave_one_out`."""
        kernels, memory = self._kernels[label], self._memory([label])
        parts, size, alone = [], self._size(kernels), math.log(len(kernels) - 1)
        for start in range(0, len(kernels), size):
            points = kernels[start : start + size].to(self._device, torch.float64)
            # the block of the points themselves, without them; -inf where that leaves none
            own = _Block(points, self._bandwidth, memory)
            total = (
                own.leave_one_out(0) + math.log(len(points) - 1)
                if len(points) > 1
                else points.new_full((1,), -math.inf)
            )
            others = self._blocks(label, memory, skip=start)
            if len(kernels) > len(points):
                total = torch.logaddexp(total, self._sum(others, points, gradient=False)[0])
            parts.append(total - alone)
            mapped.release(kernels[start : start + size])
        return torch.cat(parts)

    def _sum(self, blocks: Iterator[_Block], points: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Logarithm of sum_b M_b p_b, and its derivative."""
        zeros = torch.zeros(len(points), dtype=torch.int64, device=points.device)
        logs = slopes = None
        for block in blocks:
            more, steep = block.evaluate(points, zeros, gradient)
            more += math.log(block.count)
            if logs is None:
                logs, slopes = more, steep
                continue
            total = torch.logaddexp(logs, more)
            if slopes is not None and steep is not None:
                slopes = slopes * (logs - total).exp()[:, None] + steep * (more - total).exp()[:, None]
            logs = total
        assert logs is not None
        return logs, slopes

    def _blocks(self, label: int, memory: Tensor, skip: int = -1) -> Iterator[_Block]:
        """Yield a class's blocks, all in the same memory; the one that starts at `skip` is left out."""
        kernels = self._kernels[label]
        size = self._size(kernels)
        for start in range(0, len(kernels), size):
            if start != skip:
                part = kernels[start : start + size]
                yield _Block(part.to(self._device), self._bandwidth, memory)
                mapped.release(part)

    def _size(self, kernels: Tensor) -> int:
        return max(1, ENTRIES // (kernels.shape[1] + 1))

    def _memory(self, labels: Sequence[int]) -> Tensor:
        """Room for the largest block of some classes."""
        sizes = [min(len(k), self._size(k)) * (k.shape[1] + 1) for k in (self._kernels[c] for c in labels)]
        return torch.empty(max(sizes, default=0), dtype=torch.float64, device=self._device)


class _Block(Densities):
    """A few kernels of one class, made ready for one use in memory that the next takes over."""

    def __init__(self, kernels: Tensor, bandwidth: float, memory: Tensor) -> None:
        self._bandwidth, self._scale, self.count = bandwidth, bandwidth**-2, len(kernels)
        # any point amid the kernels keeps the cancellation small, and some of them are enough to find one
        self._means = kernels[:64].mean(dim=0, keepdim=True, dtype=torch.float64)
        table = self._table(kernels, self._means[0], memory)
        # turning the table round would cost more than it saves on a few points
        self._columns = [table.T]
        self._close([table])

    @staticmethod
    def _squares(centred: Tensor) -> Tensor:
        # needs no table of the squares
        return torch.linalg.vector_norm(centred, dim=1).square_()
