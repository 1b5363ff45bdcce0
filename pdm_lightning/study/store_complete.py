"""Completion of ``pdml store``: its commands and flags, and kinds and keys of the store that the line names."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pdm_lightning.study.store_commands import COMMANDS, parser_of
from pdm_lightning.survey import Survey

Folders = Callable[[str], list[str]]


def candidates(words: Sequence[str], word: str, folders: Folders) -> list[str]:
    """What the last word of a line can become.

    Parameters
    ----------
    words : sequence of str
        Between ``store`` and the last word.
    word : str
        The last word as far as it is typed.
    folders : callable
        Folders that a path can become.
    """
    if not words or words[0] not in COMMANDS:
        return list(COMMANDS) if not words else []
    flags = parser_of(words[0])._option_string_actions
    previous = flags.get(words[-1])
    if previous is not None and not isinstance(previous, (argparse._StoreTrueAction, argparse._HelpAction)):
        if previous.dest == "output":
            return folders(word)
        return [str(choice) for choice in previous.choices or ()] or _names(words, word)
    if word.startswith("-"):
        return sorted(name for name in flags if name.startswith("--"))
    if word.startswith("paths.output="):
        return [f"paths.output={folder}" for folder in folders(word.partition("=")[2])]
    return _names(words, word) if words[0] != "gc" else []


def _names(words: Sequence[str], word: str) -> list[str]:
    """Kinds, then, once something is typed, keys; ``kind/key`` after a slash."""
    names = Survey(_output(words) / "store").names
    kinds = list(dict.fromkeys(kind for kind, _ in names))
    if "/" in word:
        return [f"{kind}/{key}" for kind, key in names if f"{kind}/{key}".startswith(word)]
    return kinds + ([key for _, key in names if key.startswith(word)] if word else [])


def _output(words: Sequence[str]) -> Path:
    """The output folder that a line names."""
    found = "outputs"
    for before, word in zip(("", *words), words, strict=False):
        key, equals, value = word.partition("=")
        if before == "--output":
            found = word
        elif equals and key in ("--output", "paths.output"):
            found = value
    return Path(os.path.expanduser(found))
