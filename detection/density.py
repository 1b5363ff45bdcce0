"""Gaussian kernel densities in log space, with a gradient that stays alive far from every kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

# entries of one table of points x kernels: 2**17 float64 are 1 MiB and stay in a core's cache; accelerators
# are slow in small portions, and 2**24 are 128 MiB
BLOCK = 2**17
BLOCK_ACCELERATOR = 2**24
# exp(+-600) and sums of it are normal float64; where exp underflows it becomes many times slower as well
REACH = 600.0


def log_normaliser(count: int, dim: int, bandwidth: float) -> float:
    """Logarithm of M (2 pi h^2)^(d/2), the constant of a mean of M isotropic Gaussians in d dimensions."""
    return math.log(count) + dim * (0.5 * math.log(2 * math.pi) + math.log(bandwidth))


class Densities:
    """One kernel density estimate per class with isotropic Gaussian kernels, made ready for many queries.

    For a point z and a class's centres k_j, both counted from the mean of those centres (which keeps the
    cancellation small), the exponents are

        -||z - k_j||^2 / (2 h^2) = [z, 1] . [k_j / h^2, -||k_j||^2 / (2 h^2)] - ||z||^2 / (2 h^2),

    so one matrix product gives them all. There is no square root: the gradient is finite on a kernel.

    Parameters
    ----------
    kernels : sequence of Tensor
        Per class c the kernels' centres (M_c, d), M_c >= 1, of any float dtype, all on one device; what is computed of
        them is float64.
    bandwidth : float
        Standard deviation h > 0 of each kernel, in units of the embedding.
    """

    def __init__(self, kernels: Sequence[Tensor], bandwidth: float) -> None:
        self._bandwidth, self._scale = bandwidth, bandwidth**-2
        self._means = torch.stack([k.mean(dim=0, dtype=torch.float64) for k in kernels])
        tables = [self._table(k, mean) for k, mean in zip(kernels, self._means, strict=True)]
        # one table per class serves both products, of which this layout suits the first
        self._columns = [table.T.contiguous() for table in tables]
        self._close(tables)

    def _table(self, kernels: Tensor, mean: Tensor, memory: Tensor | None = None) -> Tensor:
        """[k_j / h^2, -||k_j||^2 / (2 h^2)] with centres counted from a mean: (M, d + 1), in `memory` if given."""
        shape = len(kernels), kernels.shape[1] + 1
        table = mean.new_empty(shape) if memory is None else memory[: shape[0] * shape[1]].view(shape)
        centred = table[:, :-1].copy_(kernels).sub_(mean)
        torch.mul(self._squares(centred), -0.5 * self._scale, out=table[:, -1])
        centred.mul_(self._scale)
        return table

    @staticmethod
    def _squares(centred: Tensor) -> Tensor:
        return centred.square().sum(dim=1)

    def _close(self, tables: Sequence[Tensor]) -> None:
        self._radii = torch.stack([table[:, -1].neg().max() for table in tables]).sqrt_()
        normalisers = [log_normaliser(len(table), table.shape[1] - 1, self._bandwidth) for table in tables]
        self._normalisers = torch.tensor(normalisers, dtype=torch.float64, device=self.device)

    @property
    def device(self) -> torch.device:
        """Where the kernels lie, and where points must lie."""
        return self._means.device

    def __call__(self, points: Tensor, classes: Tensor) -> Tensor:
        """Log density of each point under the kernels of a class given for it.

        log p(z) = logsumexp_j(-||z - k_j||^2 / (2 h^2)) - log M - d/2 log(2 pi h^2)

        Parameters
        ----------
        points : Tensor
            (N, d) float64; the gradient flows back to them, once: there is no second derivative.
        classes : Tensor
            (N,) int64, each class in 0..C-1.

        Returns
        -------
        Tensor
            (N,) float64, natural-log densities. Rows are worked off in blocks, so memory stays small.

        Raises
        ------
        RuntimeError
            On the way back, where the gradient itself shall be differentiable.
        """
        classes = classes.to(points.device)
        if torch.is_grad_enabled() and points.requires_grad:
            return _LogDensity.apply(points, classes, self)
        return self.evaluate(points.detach(), classes, gradient=False)[0]

    def evaluate(self, points: Tensor, classes: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Log densities as in `__call__` and, where asked for, their derivatives; without autograd.

        grad log p(z) = (sum_j w_j k_j - z) / h^2,    w_j = softmax_j(-||z - k_j||^2 / (2 h^2))

        Returns
        -------
        tuple of Tensor and (Tensor or None)
            (N,) and (N, d), both float64.
        """
        order = classes.argsort(stable=True)
        labels, counts = classes[order], classes.bincount().tolist()
        extended, outer = self._extend(points.index_select(0, order), self._means.index_select(0, labels))
        # by the triangle inequality no exponent of the other rows lies beyond the reach
        far = (outer.neg().sqrt_() + self._radii[labels]).square_() > REACH
        logs, sums = outer - self._normalisers[labels], torch.empty_like(outer)
        slopes = torch.empty_like(points) if gradient else None
        for label, rows, table in self._tables(extended, counts):
            if far[rows].any():
                logs[rows] += _lower(table)
            torch.sum(table.exp_(), dim=1, out=sums[rows])
            if slopes is not None:
                torch.mm(table, self._columns[label][:-1].T, out=slopes[rows])
        if slopes is not None:
            slopes.div_(sums[:, None]).sub_(extended[:, :-1], alpha=self._scale)
            slopes = torch.empty_like(slopes).index_copy_(0, order, slopes)
        logs += sums.log_()
        return torch.empty_like(logs).index_copy_(0, order, logs), slopes

    def leave_one_out(self, label: int) -> Tensor:
        """Log density of the centres of class `label`, each under the *other* kernels of the class.

        Returns
        -------
        Tensor
            (M,) float64, M >= 2. A centre that occurs twice keeps its double.
        """
        centred = self._columns[label][:-1].T / self._scale
        extended, logs = self._extend(centred, torch.zeros_like(centred))
        for _, rows, table in self._tables(extended, [0] * label + [len(centred)]):
            table.diagonal(rows.start).fill_(-math.inf)
            logs[rows] += _lower(table) + table.exp_().sum(dim=1).log_()
        return logs - log_normaliser(len(centred) - 1, centred.shape[1], self._bandwidth)

    def _extend(self, points: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """Points from the means with a 1 appended, (N, d + 1), and -||z||^2 / (2 h^2) of each, (N,)."""
        extended = points.new_ones(len(points), points.shape[1] + 1)
        z = torch.sub(points, means, out=extended[:, :-1])
        return extended, torch.linalg.vector_norm(z, dim=1).square_().mul_(-0.5 * self._scale)

    def _tables(self, extended: Tensor, counts: list[int]) -> Iterator[tuple[int, slice, Tensor]]:
        """Yield class, rows and exponents less the points' own term, block after block in the same memory."""
        block = BLOCK if self.device.type == "cpu" else BLOCK_ACCELERATOR
        memory, stop = extended.new_empty(0), 0
        for label, count in enumerate(counts):
            columns, start, stop = self._columns[label], stop, stop + count
            step = max(1, block // columns.shape[1])
            for first in range(start, stop, step):
                rows = slice(first, min(first + step, stop))
                shape = (rows.stop - rows.start, columns.shape[1])
                if memory.numel() < shape[0] * shape[1]:
                    memory = extended.new_empty(shape[0] * shape[1])
                table = memory[: shape[0] * shape[1]].view(shape)
                yield label, rows, torch.mm(extended[rows], columns, out=table)


class _LogDensity(Function):
    """Keeps the (N, d) derivative that falls off with the values, instead of the tables behind it."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, classes: Tensor, densities: Densities) -> Tensor:
        logs, slopes = densities.evaluate(points, classes, gradient=True)
        ctx.save_for_backward(slopes)
        return logs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            # the derivative is a constant here: a second one would be wrong without a word
            raise RuntimeError("a kernel density has no second derivative: leave out create_graph=True")
        (slopes,) = ctx.saved_tensors
        return gradient[:, None] * slopes, None, None


def _lower(table: Tensor) -> Tensor:
    """Subtract each row's largest exponent in place, and give those (N,): exp then takes what is left."""
    top = table.amax(dim=1)
    # weights of exp(-600) count for nothing in float64, as would the zeros that take exp so long
    table.sub_(top[:, None]).clamp_(min=-REACH)
    return top
