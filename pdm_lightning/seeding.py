"""Randomness by name: every use has its own stream, so that adding one does not move another."""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
import random
from collections.abc import Iterator

import numpy as np
import torch


def derive(seed: int, *names: str | int) -> int:
    """Derive a seed from a seed and names.

    Parameters
    ----------
    seed : int
        The study's seed.
    *names : str or int
        What it is for, as in ``derive(seed, "augment", step)``.

    Returns
    -------
    int
        In [0, 2**63): the first 63 bits of the SHA-256 of ``[seed, *names]`` as JSON; the same on every
        machine, in every process and with every version.
    """
    # `index` takes whole numbers of every library and nothing else
    parts = [
        operator.index(seed),
        *(name if isinstance(name, str) else operator.index(name) for name in names),
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a PyTorch generator whose stream is named by `seed` and `names`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *names))


def reseed(seed: int, device: torch.device) -> None:
    """Seed the global streams of the CPU and, where it is a GPU, of a device: `torch.manual_seed` for every step.

    That one asks every kind of device that PyTorch knows; where there is none, each notes the whole call stack at every
    call, which takes milliseconds and memory.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Seed the global streams (Python, NumPy, PyTorch on all devices) inside; restore them afterwards."""
    number = derive(seed, *names)
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - others draw from it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices):
            random.seed(number)
            np.random.seed(number % 2**32)  # noqa: NPY002 - the state that others draw from
            torch.manual_seed(number)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 - as above
