"""The loggers of a training, whichever process it runs in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pdm_lightning.tracking import axis_tags, tracking

NEEDED = ("logger", "group", "paths", "axes")
"""What of a node's runtime is read here."""


@contextmanager
def logged(
    runtime: Mapping[str, Any], key: str, settings: Mapping[str, Any], title: str
) -> Iterator[list[Any]]:
    """Lightning loggers of a training node, finished afterwards.

    Parameters
    ----------
    runtime : mapping
        Of the node: at least what of `NEEDED` it has.
    key, settings, title : str, mapping, str
        The node's key, spec and title.
    """
    axes = runtime.get("axes", {})
    with tracking(
        runtime["logger"],
        Path(runtime["paths"]["output"]) / "logs",
        key,
        {**axes, "key": key, "settings": settings},
        runtime["group"],
        name=title,
        tags=axis_tags(axes),
    ) as loggers:
        yield loggers
