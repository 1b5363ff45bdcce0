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
        names), patterns such as ``photos/**/*.png`` (folders that they match count as typed, but for those that a
        ``**`` enters itself), or ``-`` for `listed`.
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
        for name in _matching(word):
            empty = False
            yield name
        if empty:
            yield word


def _matching(word: str) -> Iterator[str]:
    """Files that a pattern matches, as those of `glob`, whose ``**`` does not end in loops of links."""
    parts = word.split(os.sep)
    if "**" not in parts:
        for name in glob.iglob(word):
            yield from walk(name) if os.path.isdir(name) else (name,)
        return
    place = parts.index("**")
    head = os.sep.join([*parts[:place], ""])  # a pattern that ends so matches folders alone
    below = [part for part in parts[place + 1 :] if part]
    for start in glob.iglob(head) if head else ("",):
        for folder, names in _folders(start):
            if names is None:
                yield folder
            elif "**" in below:
                yield from _matching(os.path.join(glob.escape(folder), *below))
            else:
                found = glob.iglob(os.path.join(glob.escape(folder), *(below or ["*"])))
                yield from (name for name in found if not os.path.isdir(name))


def walk(folder: str | Path) -> Iterator[str]:
    """Yield the images under a folder, by suffix, in the order of their names; hidden ones are passed over.

    Links are followed, and each folder is entered once: a loop of links ends.
    """
    for place, names in _folders(os.fspath(folder)):
        if names is None:
            yield place  # whoever reads it tells why it cannot be read
            continue
        for name in names:
            path = os.path.join(place, name)
            if os.path.splitext(name)[1].lower() in SUFFIXES and not os.path.isdir(path):
                yield path


def _folders(folder: str) -> Iterator[tuple[str, list[str] | None]]:
    """Yield a folder and those below it, each once, with the names in it, or None where it cannot be listed."""
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            found = os.stat(place or os.curdir)
            if (found.st_dev, found.st_ino) in entered:
                continue
            entered.add((found.st_dev, found.st_ino))
            names = sorted(name for name in os.listdir(place or os.curdir) if not name.startswith("."))
        except OSError:
            yield place, None
            continue
        yield place, names
        paths = [os.path.join(place, name) for name in names]
        waiting += reversed([path for path in paths if os.path.isdir(path)])
