"""Where and with what was measured, without a path of the machine."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

LIBRARIES = (
    "torch",
    "numpy",
    "scikit-learn",
    "torchattacks",
    "foolbox",
    "adversarial-robustness-toolbox",
    "cleverhans",
    "adv-lib",
)
#: Processor time of this process is disturbed less by other work on the machine.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_ABSOLUTE = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?[\\/](?:[^\s'\"\\/:]+[\\/])+")


def settings(**more: Any) -> dict[str, Any]:
    """Date, processor, threads and versions, and whatever else is given."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        **more,
    }


def version(distribution: str) -> str:
    """Version of an installed distribution, or "missing"."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def without_paths(text: str) -> str:
    """The text with folders of absolute paths cut off, so that file names alone remain."""
    return _ABSOLUTE.sub("", text)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Hold torch and the numerical libraries to so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)
