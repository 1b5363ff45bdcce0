"""One of the processes that train one model together: which rows of a batch are its own, and what the others made."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Replica:
    """The place of a process among those that train copies of one model.

    Every process knows the whole batch, computes the outputs of its own rows, and gets the others' outputs as
    constants; so each computes the loss L of the whole batch, and the gradient of what its own rows contributed to it.
    The sum of these gradients over the processes is the gradient of L: through the rows each computed, and, where a
    batch norm's statistics are everybody's, through these too, for its backward pass hands on what every process's
    rows made of them. `DistributedDataParallel` takes the mean in place of the sum: hence `scale`.

    Attributes
    ----------
    rank : int
        Number of the process; 0 is the one that writes and logs.
    count : int
        How many there are.
    """

    rank: int = 0
    count: int = 1

    def divides(self, batch: int) -> bool:
        """Whether a batch of so many anchors can be shared evenly."""
        return batch % self.count == 0

    def share(self, rows: Tensor, branches: int) -> Tensor:
        """Take this process's rows of a batch: the rank-th part of the anchors, then that of the partners.

        Parameters
        ----------
        rows : (branches * B, ...) Tensor
            All anchors, and for pairs, with two branches, all partners after them.

        Returns
        -------
        (branches * B / count, ...) Tensor
        """
        if self.count == 1:
            return rows
        return rows.unflatten(0, (branches, self.count, -1))[:, self.rank].flatten(0, 1)

    def gather(self, own: Tensor, branches: int) -> Tensor:
        """Undo `share` for what was computed from the rows; every process has to call it.

        Parameters
        ----------
        own : (branches * B / count, ...) Tensor
            Of this process: it keeps its graph, the others' parts are constants.

        Returns
        -------
        (branches * B, ...) Tensor
        """
        if self.count == 1:
            return own
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(self.count)]
        dist.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        return torch.stack(parts).unflatten(1, (branches, -1)).transpose(0, 1).flatten(0, 2)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to go backward from, where the mean over the processes' gradients is taken."""
        return loss if self.count == 1 else loss * self.count


ALONE = Replica()
"""The only process."""


def check_shares(batch: int, devices: int) -> None:
    """ValueError unless so many devices can train together and share a batch evenly; it names the mend."""
    if devices > 1 and not dist.is_available():
        raise ValueError(
            f"trainer.devices={devices}: this PyTorch has no torch.distributed: use trainer.devices=1"
        )
    if batch % devices:
        even = batch - batch % devices or devices
        fewer = max(n for n in range(1, devices) if batch % n == 0)
        raise ValueError(
            f"trainer.devices={devices}: they cannot share a batch of {batch} evenly: use "
            f"budget.train.batch_size={even}, or trainer.devices={fewer}"
        )


def meeting_point() -> dist.TCPStore:
    """A store at whose ``port`` processes of this machine meet.

    It listens on the loopback interface alone, where PyTorch would listen on all; its port is taken when it is told.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    return dist.TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )


def join(replica: Replica, device: torch.device, port: int) -> None:
    """Meet the other processes at a `meeting_point` of the one that started them all: NCCL on GPUs, gloo on CPUs."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=store,
        rank=replica.rank,
        world_size=replica.count,
        device_id=device if cuda else None,
    )
