"""Files that the guard's commands write: checked before the work, against all that is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pdm_lightning.durable import regular
from pdm_lightning.guard.picture import SUFFIXES


def writable(flag: str, word: str, inputs: Iterable[Path] = ()) -> Path:
    """Check that a file can be written without loss of what is read.

    Parameters
    ----------
    flag : str
        What it was typed after, for messages.
    word : str
        Its path.
    inputs : iterable of Path
        Files that are read; what is no file is passed over.

    Returns
    -------
    Path
        The file itself, where the word is a link to it.

    Raises
    ------
    ValueError, OSError
        For a folder, a device, a file in no folder or in one that is not writable, an image, or an input.
    """
    path, told = Path(word), f"{flag} {word}"
    if path.is_dir():
        raise ValueError(f"{told} is a folder: name a file in it")
    try:
        path = regular(path)
    except ValueError as error:
        raise ValueError(f"{told} is no regular file: name another") from error
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{told}: there is no folder '{path.parent}'")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{told}: the folder '{path.parent}' is not writable")
    if path.suffix.lower() in SUFFIXES:
        raise ValueError(f"{told} would be an image: name another file")
    written = [found for found in (path, path.with_name(f"{path.name}.new")) if found.exists()]
    for read in inputs:
        if read.is_file() and any(os.path.samefile(read, found) for found in written):
            raise ValueError(f"{told} would overwrite {read}, which is read: name another file")
    return path
