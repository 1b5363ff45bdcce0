"""Which artifacts the studies of an output folder rest on, so that nothing of them is thrown away.

A study is kept as long as its folder is: ``report/<name>/`` or ``tune/<name>/``. There it notes all its artifacts in
``artifacts/*.txt``, before it computes the first of them. Several commands may share a name, and so a folder: each set
of artifacts is a note of its own, and what an earlier command rests on stays. Reports of an earlier version have no
such note; what the rows of their ``results.csv`` come from is named there, as what a search has trained is in its
journal.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pdm_lightning.study.graph import Node

FOLDER = "artifacts"
STUDIES = ("report", "tune")
_RECORDS = (f"{FOLDER}/*.txt", "results.csv", "journal.log")
_KEY = re.compile(rb"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")


def remember(nodes: Iterable[Node], study: Path, name: str = "") -> None:
    """Note the artifacts that a study is about to use, in its folder.

    Parameters
    ----------
    nodes : iterable of Node
        Such as a `Plan`.
    study : Path
        ``report/<name>`` or ``tune/<name>`` of the output folder.
    name : str
        Replaces what was noted under it before; default: a name of these very artifacts.
    """
    noted = "".join(f"{node.kind}/{node.key}\n" for node in nodes)
    name = name or f"study-{hashlib.sha256(noted.encode()).hexdigest()[:12]}"
    path = study / FOLDER / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{name}.{os.getpid()}.partial")
    scratch.write_text(noted, encoding="utf-8")
    os.replace(scratch, path)


def records(output: Path) -> dict[Path, list[Path]]:
    """The files that name artifacts, by the folder of their study."""
    found: dict[Path, list[Path]] = {}
    for place in STUDIES:
        for study in sorted(path for path in (output / place).glob("*") if path.is_dir()):
            files = [path for pattern in _RECORDS for path in sorted(study.glob(pattern)) if path.is_file()]
            if files:
                found[study] = files
    return found


def named(output: Path) -> dict[Path, frozenset[str]]:
    """The keys that each study names, by its folder.

    Raises
    ------
    OSError
        Where a record cannot be read: nobody knows then what the study rests on.
    """
    return {
        study: frozenset(match.decode() for path in files for match in _KEY.findall(path.read_bytes()))
        for study, files in records(output).items()
    }


def signature(output: Path) -> frozenset[tuple[str, int, int]]:
    """Changes when a study notes something, or goes."""
    seen = set()
    for files in records(output).values():
        for path in files:
            stat = path.stat()
            seen.add((str(path), stat.st_mtime_ns, stat.st_size))
    return frozenset(seen)
