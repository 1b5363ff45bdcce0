"""The implementations: ours and one adapter for each public library."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection
from types import ModuleType

from benchmarks.entries import Entry
from benchmarks.families import Family

#: Adapters, each with LIBRARY, MODULE (what it imports), DISTRIBUTION (its name for pip) and entries(family).
ADAPTERS = ("torchattacks", "foolbox", "art", "cleverhans", "adv_lib")


def adapter(name: str) -> ModuleType:
    """The module ``benchmarks.peers.NAME``."""
    return importlib.import_module(f"benchmarks.peers.{name}")


def missing(names: Collection[str] = ADAPTERS) -> list[str]:
    """Those of the libraries that are not installed, by the names that pip knows."""
    found = [adapter(name) for name in names]
    return [peer.DISTRIBUTION for peer in found if importlib.util.find_spec(peer.MODULE) is None]


def entries(family: Family, names: Collection[str] = ADAPTERS) -> list[Entry]:
    """All rows of a family: ours, then those of the libraries that are installed."""
    rows: list[Entry] = adapter("ours").entries(family)
    for name in names:
        peer = adapter(name)
        if importlib.util.find_spec(peer.MODULE) is not None:
            rows += peer.entries(family)
    return rows
