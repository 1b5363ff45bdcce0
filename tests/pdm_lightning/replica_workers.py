"""What three processes compute together in the tests of replicas and of their norm; imported by its name."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pdm_lightning.norm import join_norms
from pdm_lightning.replicas import Replica, join

CPU = torch.device("cpu")
COUNT = 3

NORMS = {
    "images": lambda: nn.BatchNorm2d(5),
    "rows": lambda: nn.BatchNorm1d(5),
    "volumes": lambda: nn.BatchNorm3d(5, eps=1e-3, momentum=0.3),
    "cumulative": lambda: nn.BatchNorm2d(5, momentum=None),
    "plain": lambda: nn.BatchNorm2d(5, affine=False),
    "untracked": lambda: nn.BatchNorm2d(5, track_running_stats=False),
}
SHAPES = {"rows": (6, 5), "volumes": (6, 5, 2, 3, 2)}


def rows_of(name: str, step: int) -> Tensor:
    """A batch far from 0, where a difference of mean squares would lose its digits."""
    draws = torch.Generator().manual_seed(step)
    return 100 + torch.randn(SHAPES.get(name, (6, 5, 4, 3)), generator=draws, dtype=torch.float64)


def network(name: str) -> nn.Sequential:
    """A norm between what may get in its way: an activation in place and a second use of the same norm."""
    torch.manual_seed(0)
    made = nn.Sequential(NORMS[name](), nn.LeakyReLU(0.1, inplace=True)).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def judged(out: Tensor, step: int) -> Tensor:
    """A loss that couples all rows (N, ...)."""
    weights = torch.linspace(1, 2, out.numel(), dtype=out.dtype).reshape(out.shape) + step
    return (out * weights).sum().square() / 1e4 + (out * weights.sqrt()).pow(3).mean()


def together(say: Any, rank: int, ports: list[int]) -> None:
    """One of the processes."""
    replica = Replica(rank, COUNT)
    for job, port in zip((normalise, gather), ports, strict=True):
        join(replica, CPU, port)
        job(say, replica)
        dist.destroy_process_group()


def normalise(say: Any, replica: Replica) -> None:
    """Three training steps through each norm, each process with its rows, and one in eval mode."""
    rank = replica.rank
    for name in NORMS:
        joined = join_norms(network(name), CPU)
        for step in range(3):
            own = replica.share(rows_of(name, step), 1).requires_grad_()
            out = replica.gather(joined(own), 1)
            judged(out, step).backward()
            say((name, step, rank, out.detach(), own.grad))
        say((name, "state", rank, dict(joined.state_dict()), [p.grad for p in joined.parameters()]))
        own = replica.share(rows_of(name, 9), 1)
        say((name, "eval", rank, joined.eval()(own).detach(), None))


def gather(say: Any, replica: Replica) -> None:
    """Share a batch of 6 anchors and 6 partners, and a loss of it, through weights and a norm."""
    rank = replica.rank
    for branches in (1, 2):
        rows = rows_of("rows", 4).repeat(branches, 1) + torch.arange(6.0 * branches)[:, None]
        own = replica.share(rows, branches)
        say((branches, "rows", rank, own, replica.gather(own, branches)))
        layer = join_norms(coupled(), CPU)
        total = pulled(replica.gather(layer(own), branches))
        replica.scale(total).backward()
        say((branches, "loss", rank, total.detach(), [p.grad for p in layer.parameters()]))


def coupled() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()


def pulled(z: Tensor) -> Tensor:
    """Every row pulls at every other one."""
    return torch.cdist(z, z.roll(1, 0)).square().mean() + z.prod(dim=1).exp().clamp(max=50).mean()
