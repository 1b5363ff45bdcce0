"""Completion of ``pdml compare``: studies, their defences, and what to choose by. Nothing here imports PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pdm_lightning.study.sides import FILTERS, Side, read_side, studies

Folders = Callable[[str], list[str]]


def candidates(words: Sequence[str], word: str, folders: Folders) -> list[str]:
    """What the last word of a line can become.

    Parameters
    ----------
    words : sequence of str
        Between ``compare`` and the last word.
    word : str
        The last word as far as it is typed.
    folders : callable
        Folders that a path can become.
    """
    if words and words[-1] == "--output":
        return folders(word)
    if word.startswith("-"):
        return ["--help", "--output"]
    output, named = _read(words)
    if word.startswith("paths.output="):
        return [f"paths.output={folder}" for folder in folders(word.partition("=")[2])]
    if len(named) < 2:
        return _studies(word, output, folders)
    return _filters(word, [side for name in named if (side := _side(name, output))])


def _read(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The output folder that a line names, and its studies."""
    output, named = "outputs", []
    for before, word in zip(("", *words), words, strict=False):
        key, equals, value = word.partition("=")
        if before == "--output":
            output = word
        elif equals and key in ("--output", "paths.output"):
            output = value
        elif not equals and not word.startswith("-"):
            named.append(word)
    return Path(os.path.expanduser(output)), named


def _side(word: str, output: Path) -> Side | None:
    try:
        return read_side(word, output)
    except (ValueError, OSError):  # whoever presses TAB on a line that is wrong so far wants no error
        return None


def _studies(word: str, output: Path, folders: Folders) -> list[str]:
    """Names of studies, and folders; after a colon the study's defences."""
    study, colon, _ = word.rpartition(":")
    if colon and (side := _side(study, output)):
        return [f"{study}:{name}" for name in dict.fromkeys(row.defense for row in side.rows)]
    return [*studies(output), *(folders(word) if word else [])]


def _filters(word: str, sides: Sequence[Side]) -> list[str]:
    """Columns, then names in a column that a side has; in a list those that are not in it yet."""
    key, equals, value = word.partition("=")
    if not equals:
        return [f"{column}=" for column in FILTERS]
    if key not in FILTERS:
        return []
    head, comma, _ = value.rpartition(",")
    names = dict.fromkeys(str(getattr(row, key)) for side in sides for row in side.rows)
    taken = head.split(",")
    return [f"{key}={head}{comma}{name}" for name in names if name and name not in taken]
