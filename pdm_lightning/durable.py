"""Files that a kill, a full disk or a power cut leaves whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

TEMPORARY = (".tmp*", "*.tmp", "*.part", "*.new")
"""Names of files that are not whole yet, ours and those of safetensors: whoever writes one renames it at the end."""


def sync(path: Path) -> None:
    """Have the operating system put a file, or a folder's list of names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def regular(path: Path) -> Path:
    """The file that a path leads to, links followed, there or not; ValueError for a device, a pipe or a folder."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file: name another")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def replacing(path: Path, *, keep: bool = True) -> Iterator[Path]:
    """Yield the path of a file to write; what was written takes the place of `path` in one step, and is on the disk.

    Where writing fails, what was there stays, and the unfinished file too, unless `keep` is false. ValueError as
    `regular`.
    """
    path = regular(path)
    new = path.with_name(f"{path.name}.new")
    try:
        yield new
    except BaseException:
        if not keep:
            new.unlink(missing_ok=True)
        raise
    sync(new)
    os.replace(new, path)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step; it is on the disk then."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def is_whole(path: Path) -> bool:
    """Whether a safetensors file is there, its header can be read and its size is what that says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return True
    except (OSError, SafetensorError):
        return False


def sweep(folder: Path) -> None:
    """Remove the files in a folder that whoever wrote them did not finish."""
    for path in list(folder.rglob("*")):
        if any(fnmatch(path.name, pattern) for pattern in TEMPORARY) and not path.is_dir():
            path.unlink(missing_ok=True)
