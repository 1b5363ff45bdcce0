"""From what was typed to image files, one after the other: nothing but the names of one folder is held at a time."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pdm_lightning.guard.picture import SUFFIXES


def find_images(words: Iterable[str | Path], listed: Iterable[str] = ()) -> Iterator[str]:
    """Yield the paths of images; what is not there is yielded as it was typed, and fails where it is read.

    Parameters
    ----------
    words : iterable of str or Path
        Files (as they are, whatever their suffix), folders (all images in them, to any depth, in the order of their
        names), patterns such as ``photos/**/*.png``, or ``-`` for `listed`.
    listed : iterable of str
        Each a file, a folder or a pattern; read as they are needed, and passed over where they are empty.
    """
    for given in words:
        word = os.fspath(given)
        if word == "-":
            for name in listed:
                if name:
                    yield from _found(name)
        else:
            yield from _found(word)


def _found(word: str) -> Iterator[str]:
    if os.path.isdir(word):
        yield from walk(word)
    elif os.path.lexists(word) or not glob.has_magic(word):
        yield word
    else:
        empty = True
        for name in glob.iglob(word, recursive=True):
            empty = False
            if not os.path.isdir(name):
                yield name
        if empty:
            yield word


def walk(folder: str | Path) -> Iterator[str]:
    """Yield the images under a folder, by suffix, in the order of their names; hidden ones are passed over.

    Links are followed, and each folder is entered once: a loop of links ends.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        try:
            found = os.stat(place)
            if (found.st_dev, found.st_ino) in entered:
                continue
            entered.add((found.st_dev, found.st_ino))
            names = sorted(name for name in os.listdir(place) if not name.startswith("."))
        except OSError:
            yield place  # whoever reads it tells why it cannot be read
            continue
        below = []
        for name in names:
            path = os.path.join(place, name)
            if os.path.splitext(name)[1].lower() in SUFFIXES and not os.path.isdir(path):
                yield path
            elif os.path.isdir(path):
                below.append(path)
        waiting += reversed(below)
