"""How a training is run on the machine: layout of the weights, compiling, precision, memory."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pdm_lightning.devices import precise
from pdm_lightning.models import Classifier
from pdm_lightning.models.head import looking

PRECISIONS = ("float32", "tf32", "bf16")
"""What ``trainer.precision`` may be."""

#: Numbers of two of glibc's settings, and the values that its own rule for them never passes.
_MMAP, _TRIM = (-3, 32 << 20), (-1, 64 << 20)
_HELD = 2**31 - 1


@dataclass(frozen=True)
class Pace:
    """How a training is run; nothing of it changes the result beyond rounding.

    Attributes
    ----------
    channels_last
        Weights of convolutions in channels-last layout; None: on a CPU, and in bfloat16 on a GPU, where the
        network can be run so. It follows from no measurement: it decides how sums are rounded, and a training that is
        repeated has to round alike.
    compile
        Have PyTorch compile the network.
    """

    channels_last: bool | None = None
    compile: bool = False


#: As the options have it that nobody touched.
USUAL = Pace()


def check_precision(name: object) -> str:
    """The name of a precision; ValueError for an unknown one."""
    if name not in PRECISIONS:
        raise ValueError(f"trainer.precision={name}: choose {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
    return str(name)


def check_tf32(precision: object, kind: str, why: str) -> None:
    """ValueError where tf32 would do nothing: the same weights, stored as another artifact.

    Parameters
    ----------
    precision : str
    kind : str
        Of the device: ``cpu`` or ``cuda``.
    why : str
        How it came to be no CUDA device, for the error.
    """
    if precision == "tf32" and kind != "cuda":
        raise ValueError(
            f"trainer.precision=tf32 is a mode of CUDA devices, and {why}: use trainer.precision=float32 or bf16"
        )


def arrange(
    classifier: Classifier, example: Tensor, pace: Pace, precision: str, *, looked_into: bool = False
) -> None:
    """Lay out a classifier's weights and compile it, in place, as a training asks for.

    Parameters
    ----------
    classifier
        On any device; its weights and its state's names stay.
    example
        (n, C, H, W) float images on its device, to try the layout on; two are enough.
    pace, precision
        As asked for.
    looked_into
        Whether the loss looks at inner layers, or takes gradients at them.

    Raises
    ------
    ValueError
        If the network cannot be run in the layout that was asked for, or compiled.
    """
    wanted = pace.channels_last
    if wanted is None:
        wanted = example.device.type == "cpu" or precision == "bf16"
    if wanted:
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        error = _fails(classifier, example)
        if error is not None:
            classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        # a network that fails in any layout says so in its first step
        if error is not None and pace.channels_last and _fails(classifier, example) is None:
            raise ValueError(
                f"trainer.channels_last=true: the network cannot be run so ({' '.join(str(error).split())[:200]}): "
                "write flatten in place of view, or leave it null"
            ) from error
    if pace.compile:
        _compile(classifier, looked_into)


def _fails(classifier: Classifier, example: Tensor) -> Exception | None:
    """What a pass of a few images raises, if anything; nothing is left of it."""
    devices = [example.device] if example.is_cuda else []
    try:
        with looking(classifier), torch.random.fork_rng(devices=devices), torch.no_grad():
            classifier.embed_and_raw(example)
    except Exception as error:  # whatever a network's own layers raise
        return error
    return None


def _compile(classifier: Classifier, looked_into: bool) -> None:
    network = getattr(classifier, "backbone", None)
    if not isinstance(network, nn.Module):
        raise ValueError(
            "trainer.compile=true: the embedding of this network is caught inside it, where a compiled one cannot be "
            "looked into: use trainer.compile=false"
        )
    if looked_into:
        raise ValueError(
            "trainer.compile=true: the defence looks at inner layers, or takes gradients of its own, and a compiled "
            "network has neither: use trainer.compile=false"
        )
    network.compile()


def align(optimizer: Optimizer) -> None:
    """Bring an optimizer's state into the layout of its parameters: one kernel over all reads both as plain memory.

    What a checkpoint holds keeps the layout in which it was saved, which may be another.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            like = isinstance(value, Tensor) and value.shape == parameter.shape
            if like and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


@contextlib.contextmanager
def running(precision: str, device: torch.device) -> Iterator[None]:
    """Train in a precision, with memory that is kept from step to step; both are restored."""
    with contextlib.ExitStack() as stack:
        if precision == "tf32":
            check_tf32(precision, device.type, f"this training runs on the {device.type.upper()}")
            stack.enter_context(precise("tf32"))
        if device.type == "cpu":
            stack.enter_context(held_memory())
        yield


@contextlib.contextmanager
def held_memory() -> Iterator[None]:
    """Keep freed memory for the next step, where the C library is glibc; given back in the end.

    By default it returns the larger blocks to the system as soon as they are free, which a training pays for with a
    page fault for every 4 KiB of every step's feature maps.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP[0], 1 << 30)
    libc.mallopt(_TRIM[0], _HELD)
    try:
        yield
    finally:
        libc.mallopt(*_MMAP)
        libc.mallopt(*_TRIM)
        libc.malloc_trim(0)


def _glibc() -> Any | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        if libc.mallopt and libc.malloc_trim:
            return libc
    return None
