"""Reads a proxy's artifact: how often it and its target agree."""

from __future__ import annotations

from detection import Interval, proportion
from pdm_lightning.store import Artifact


def agreement(proxy: Artifact) -> Interval:
    """Share of the validation images that proxy and target give one class, with Wilson's 95 % interval.

    Parameters
    ----------
    proxy : Artifact
        Of kind ``proxy``.
    """
    found = proxy.json("proxy.json")
    return proportion(round(found["agreement"] * found["images"]), found["images"])
