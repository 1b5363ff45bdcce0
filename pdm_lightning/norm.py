"""Batch norm over the rows of all processes that train one model together."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class CrossReplicaBatchNorm(_BatchNorm):
    """A batch norm whose batch is that of all processes together, on any device (`torch.nn.SyncBatchNorm`: GPUs alone).

    In training every process normalises its rows by mean and biased variance of everybody's, and keeps running
    statistics of mean and unbiased variance, the same ones everywhere. In eval mode, and without a process group, it is
    the batch norm that it was made from: same parameters, same buffers, same names.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...) rows of this process; in training all processes have to call it."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        mean, var, factor = None, None, 0.0
        if self.track_running_stats and self.running_mean is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            mean, var = self.running_mean, self.running_var
            # without a momentum: the mean over all batches so far
            factor = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        out: Tensor = _Normalise.apply(input, self.weight, self.bias, mean, var, factor, self.eps)
        return out

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"a batch norm takes (N, C, ...), not {tuple(input.shape)}")


class _Normalise(torch.autograd.Function):
    """One exchange each way: statistics forward, the sums that the input's gradient needs backward.

    Composed of differentiable all-reduces it would take two each way, mean before variance, or subtract a squared mean
    from a mean of squares, which costs float32 its digits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        factor: float,
        eps: float,
    ) -> Tensor:
        mean, var, count = _statistics(x)
        if running_mean is not None and running_var is not None:
            running_mean.mul_(1 - factor).add_(mean * factor)
            running_var.mul_(1 - factor).add_(var * (count / (count - 1) * factor))
        scale = (var + eps).rsqrt()
        # not what is returned, which an activation in place may overwrite
        ctx.save_for_backward(x, weight, mean, scale, count)
        out = (x - _wide(mean, x)) * _wide(scale, x)
        if weight is not None:
            out = out * _wide(weight, x)
        return out if bias is None else out + _wide(bias, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        (gradient,) = gradients
        normalised = (x - _wide(mean, x)) * _wide(scale, x)
        rest = [0, *range(2, gradient.dim())]
        of_bias = gradient.sum(dim=rest)
        of_weight = (gradient * normalised).sum(dim=rest)
        # those of the parameters stay this process's own: the trainer takes their mean over all
        sums = torch.stack([of_bias, of_weight])
        dist.all_reduce(sums)
        level, slope = sums / count
        out = (gradient - _wide(level, gradient) - normalised * _wide(slope, gradient)) * _wide(
            scale, gradient
        )
        if weight is not None:
            out = out * _wide(weight, gradient)
        needed = ctx.needs_input_grad
        return (out, of_weight if needed[1] else None, of_bias if needed[2] else None, None, None, None, None)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number of values a channel (1,) of everybody's rows.

    The variances are joined by Chan's formula: that of each process, and that of their means.
    """
    channels = x.shape[1]
    var, mean = torch.var_mean(x, dim=[0, *range(2, x.dim())], correction=0)
    own = torch.cat([mean, var, mean.new_full((1,), x.numel() / channels)])
    everybody = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, own)
    means, variances, counts = torch.stack(everybody).split([channels, channels, 1], dim=1)
    count = counts.sum(dim=0)
    share = counts / count
    mean = (means * share).sum(dim=0)
    var = ((variances + (means - mean).square()) * share).sum(dim=0)
    return mean, var, count


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """Values a channel (C,) in the shape that fits (N, C, ...)."""
    return values.reshape(-1, *[1] * (x.dim() - 2))


def join_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Have the batch norms of a module work on the rows of all processes; the names of its state stay.

    Parameters
    ----------
    module : nn.Module
        Its own batch norms are replaced in place; where it is one, the new one is returned.
    device : torch.device
        Where it will be trained: PyTorch's own `SyncBatchNorm` on a GPU, `CrossReplicaBatchNorm` elsewhere.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return _replaced(module)


def _replaced(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        made = _replaced(child)
        if made is not child:
            setattr(module, name, made)
    if not isinstance(module, _BatchNorm):
        return module
    joined = CrossReplicaBatchNorm.__new__(CrossReplicaBatchNorm)
    joined.__dict__ = (
        module.__dict__
    )  # parameters, buffers, settings, hooks: all but what it does with a batch
    return joined
