"""Where artifacts are built: ``.partial/<kind>-<key>``, and beside it, as ``.source``, what the build was begun with.

A builder that fell silent on another machine is taken for dead, and may still wake up. Whoever takes over from it goes
on in the same folder under another name, ``<kind>-<key>~1``, ``~2`` and so on: what the other one knows is gone then,
and it can neither write nor publish.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdm_lightning import durable

log = logging.getLogger(__name__)

FOLDER = ".partial"


def built_in(entry: str) -> str:
    """The ``kind-key`` that an entry of the folder, or of the leases, belongs to."""
    return re.split("[.~]", entry, maxsplit=1)[0]


def folder(root: Path, kind: str, key: str) -> Path:
    """Folder in which an artifact is built, or would be: the one that was taken over last."""
    name = f"{kind}-{key}"
    taken_over = (root / FOLDER).glob(f"{name}~*")
    return max(taken_over, key=lambda path: (len(path.name), path.name), default=root / FOLDER / name)


def take_over(partial: Path) -> Path:
    """Take the folder away from a builder that may still be alive; return what it is called from now on."""
    name, _, number = partial.name.partition("~")
    mine = partial.with_name(f"{name}~{int(number or 0) + 1}")
    if partial.is_dir():
        os.replace(partial, mine)
    return mine


def prepare(partial: Path, source: str, parents: Mapping[str, str], *, keep_other_source: bool) -> str:
    """Make the folder to build in, and return the source that what it will hold is owed to.

    Parameters
    ----------
    partial : Path
    source : str
        The hash of the source that builds now.
    parents : mapping of str to str
        By role, the digest of the content of each parent: an earlier builder's files are kept where theirs were the
        same.
    keep_other_source : bool
        Keep them also where other source began them. The result is owed to that source then: it will be stale.
    """
    mine, begun = [source, dict(parents)], _begun_with(partial)
    if partial.is_dir() and begun != mine:
        if begun[1] == mine[1] and keep_other_source:
            log.warning("%s: continuing what other source began", partial.name)
            durable.sweep(partial)
            return str(begun[0])
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    if begun != mine:
        durable.write_text(_note(partial), json.dumps(mine))
    durable.sweep(partial)
    return source


def forget(partial: Path) -> None:
    """Remove the note beside a folder that was published."""
    _note(partial).unlink(missing_ok=True)


def _note(partial: Path) -> Path:
    return partial.with_name(f"{built_in(partial.name)}.source")


def _begun_with(partial: Path) -> list[Any]:
    """Source and digests of the parents that a build was begun with; a note that cannot be read says neither."""
    try:
        source, parents = json.loads(_note(partial).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, TypeError):
        return ["", None]
    return [source, parents]
