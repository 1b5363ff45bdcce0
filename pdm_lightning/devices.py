"""Which device works, with how many threads, and in strict float32 where results have to be exact."""

from __future__ import annotations

import contextlib
import platform
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch


def pick_device(name: str = "auto") -> torch.device:
    """Return the device that `name` asks for.

    Parameters
    ----------
    name : str
        ``auto`` (a GPU where there is one, else the CPU), ``cpu``, ``cuda``, or ``cuda:<number>``.

    Raises
    ------
    ValueError
        Where the name is unknown, or this machine has no such device.
    """
    index = first_gpu(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise ValueError(f"trainer.device={name}: PyTorch sees no GPU here; use trainer.device=cpu")
    if index >= count:
        numbers = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise ValueError(f"trainer.device={name}: this machine has {numbers}")
    return torch.device("cuda", index)


def first_gpu(name: str) -> int:
    """Number of the GPU that a name as of `pick_device` asks for, if it asks for one; whether it is here, or not.

    Raises
    ------
    ValueError
        Where the name is unknown.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", str(name))
    if match is None:
        raise ValueError(f"trainer.device={name!r} is unknown: use auto, cpu, cuda or cuda:<number>")
    return int(match[1] or 0)


def several(held: Sequence[torch.device], count: int, key: str) -> list[torch.device]:
    """A device for each of `count` processes.

    Parameters
    ----------
    held : sequence of torch.device
        Devices that are theirs; where it is a single one, the GPUs after it are too, and a CPU is for all.
    count : int
    key : str
        The override that asks for so many, for the error.

    Raises
    ------
    ValueError
        Where there are fewer GPUs.
    """
    if len(held) >= count:
        return list(held[:count])
    first = held[0]
    if first.type != "cuda":
        return [first] * count
    start, present = first.index or 0, torch.cuda.device_count()
    if start + count > present:
        raise ValueError(
            f"{key}={count}: PyTorch sees {present} GPUs here, from cuda:{start} on {present - start}: "
            f"use {key}={present - start}"
        )
    return [torch.device("cuda", start + rank) for rank in range(count)]


def share_of_threads(device: torch.device, count: int) -> int:
    """CPU threads of each of `count` processes: a part of this one's where the CPU computes."""
    threads = torch.get_num_threads()
    return max(1, threads // count) if device.type == "cpu" else threads


def set_threads(n: int | None) -> int:
    """Have PyTorch compute on `n` CPU threads (None: leave it as it is); return the number in force.

    Raises
    ------
    ValueError
        Where `n` is no positive whole number.
    """
    if n is not None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(
                f"trainer.threads={n!r}: use a positive whole number, or null to leave the choice"
            )
        torch.set_num_threads(n)
    return torch.get_num_threads()


def describe(device: torch.device) -> str:
    """Name the machine as far as the speed of a computation on `device` depends on it."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = found[1] if found else name
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@contextlib.contextmanager
def strict_float32() -> Iterator[None]:
    """Compute float32 as float32: no TF32, no bfloat16 inside products, no autocast; all is restored.

    The switches are the process's: of the threads that are inside at a time, the first moves them and the last
    puts them back.
    """
    with _STRICT, torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


@contextlib.contextmanager
def precise(products: str) -> Iterator[None]:
    """Multiply float32 as "ieee" has it everywhere, or as "tf32" on a GPU; all is restored.

    PyTorch has two sets of switches for this, and reading the older one raises where only the newer one
    was moved. So both are moved, and the newer one, which is the finer, is restored last.
    """
    fine = _fine_switches()
    fine_before = [switch.fp32_precision for switch in fine]
    coarse_before = _coarse()
    try:
        if coarse_before is not None:
            _set_coarse(*(("highest", False) if products == "ieee" else ("high", True)))
        for switch in fine if products == "ieee" else fine[:_OF_GPU]:
            switch.fp32_precision = products
        yield
    finally:
        if coarse_before is not None:
            _set_coarse(*coarse_before)
        for switch, value in zip(fine, fine_before, strict=True):
            switch.fp32_precision = value


class _Shared:
    """A context that the first of several threads enters, and the last one leaves."""

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._make, self._entered = make, contextlib.ExitStack()
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._entered.enter_context(self._make())
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._entered.close()


_STRICT = _Shared(lambda: precise("ieee"))
#: So many of the finer switches are a GPU's.
_OF_GPU = 3


def _fine_switches() -> list[Any]:
    """Switches for each library and operation; PyTorch has them from 2.9 on."""
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):
        return []
    cudnn, onednn = backends.cudnn, backends.mkldnn
    return [backends.cuda.matmul, cudnn.conv, cudnn.rnn, onednn.matmul, onednn.conv, onednn.rnn]


def _coarse() -> tuple[str, bool] | None:
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # somebody moved the newer switches only: these cannot be read, and have no say
        return None


def _set_coarse(matmul: str, cudnn_tf32: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn_tf32
