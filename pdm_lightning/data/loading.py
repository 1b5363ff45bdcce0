"""From a data config to the data set, and to the fingerprint of what it holds."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from pdm_lightning.data.base import ImageData

#: Keys that every data config may have, whether its source takes them or not.
SHARED = frozenset(
    {"_target_", "name", "label", "root", "download", "augment", "epochs_paper", "milestones", "pairs"}
)
#: Arguments of a source that say where the images lie or how they are read, not which they are.
WHEREABOUTS = frozenset({"name", "root", "download", "cache"})


def load_data(cfg: Mapping[str, Any]) -> ImageData:
    """Read the data set that a config names.

    Parameters
    ----------
    cfg
        Plain values, as in ``conf/data/*.yaml``. ``_target_`` names a function that returns an `ImageData`;
        it gets the keys that it has arguments for.

    Raises
    ------
    ValueError
        If ``_target_`` cannot be imported, or a key is neither the source's nor one of `SHARED`.
    FileNotFoundError
        If the images are not there.
    """
    source, arguments = _resolve(cfg)
    return source(**arguments)


def fingerprint(cfg: Mapping[str, Any]) -> str:
    """What determines the images, labels and splits of a config, as 16 hex digits.

    The hash covers the source, its arguments other than places, and for a source of foreign files (one that
    has a ``listing`` attribute, see `base.reads_files`) the sorted relative names and sizes of the files, but
    not their times: a copied folder keeps its fingerprint.
    """
    source, arguments = _resolve(cfg)
    content = {key: value for key, value in sorted(arguments.items()) if key not in WHEREABOUTS}
    listing = getattr(source, "listing", None)
    files = listing(arguments["root"]) if listing else None
    told = json.dumps([cfg["_target_"], content, files], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _resolve(cfg: Mapping[str, Any]) -> tuple[Callable[..., ImageData], dict[str, Any]]:
    """The source of a config, and every argument it gets (its defaults spelt out)."""
    source = _source(cfg.get("_target_"))
    signature = inspect.signature(source)
    unknown = sorted(set(cfg) - SHARED - set(signature.parameters))
    if unknown:
        known = ", ".join(sorted(SHARED | set(signature.parameters)))
        raise ValueError(f"unknown data key(s) {', '.join(unknown)} for {cfg['_target_']}: it knows {known}")
    try:
        bound = signature.bind(**{key: value for key, value in cfg.items() if key in signature.parameters})
    except TypeError as error:
        raise ValueError(f"data config of {cfg['_target_']}: {error}") from None
    bound.apply_defaults()
    return source, dict(bound.arguments)


def _source(target: object) -> Callable[..., ImageData]:
    module, _, function = str(target).rpartition(".")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"data._target_={target!r} names no data source ({error}): "
            "take pdm_lightning.data.image_folder or another"
        ) from None
