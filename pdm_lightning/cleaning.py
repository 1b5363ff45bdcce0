"""Taking things out of a store: never what somebody builds, and nothing that could be seen half gone."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from pdm_lightning import lease, partial
from pdm_lightning.store import Store
from pdm_lightning.survey import Leftover

#: Seconds without a heartbeat, at least, after which a lease of another machine is no longer heeded: clocks differ.
SILENT = 3600.0


def set_aside(store: Store, kind: str, key: str) -> Path | None:
    """Move an artifact into the store's trash, in one rename; None where it is being built, or gone already."""
    with lease.hold(store.lease_path(kind, key), f"{kind}/{key}", ready=lambda: True) as held:
        if held is None:
            return None
        target = store.root / ".trash" / f"{kind}-{key}-{uuid.uuid4().hex[:8]}"
        target.parent.mkdir(exist_ok=True)
        try:
            os.replace(store.path(kind, key), target)
        except FileNotFoundError:
            return None
        return target


def delete(store: Store, kind: str, key: str) -> bool:
    """Delete an artifact; False where it is being built, or gone already."""
    aside = set_aside(store, kind, key)
    if aside is not None:
        _remove(aside)
    return aside is not None


def clear(store: Store, left: Leftover, silent_for: float) -> bool:
    """Remove what a build left behind; False where somebody has taken it up since.

    Parameters
    ----------
    silent_for : float
        Seconds without a heartbeat after which a lease of another machine is dead; `SILENT` at least.
    """
    if left.what == "lease":
        return lease.clear(left.path, max(silent_for, SILENT))
    if left.what == "trash":
        _remove(left.path)
        return True
    name = partial.built_in(left.path.name)
    with lease.hold(store.root / ".locks" / f"{name}.json", name, ready=lambda: True) as held:
        if held is not None:
            _remove(left.path)
        return held is not None


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except FileNotFoundError:  # somebody else empties the trash, too
        shutil.rmtree(path, ignore_errors=True)
