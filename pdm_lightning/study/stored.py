"""Small questions to a survey of a store: sizes, ages, states, and which artifacts somebody means."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from pdm_lightning.manifest import CorruptArtifact
from pdm_lightning.stages.builders import SOURCES, own_modules, source_of
from pdm_lightning.store import Store
from pdm_lightning.survey import Name, Survey, standing

STATES = {
    "cached": "as the code that is installed would build it",
    "stale": "built by other code: used, and said so; store.on_stale=rebuild builds it anew",
    "orphaned": "a parent was built anew since: a run builds it anew",
    "unknown": "nothing here tells which code would build it",
    "corrupt": "its manifest is damaged or gone: pdml store verify --remove takes it out",
}
"""What is said of an artifact, and what it means."""


def open_store(output: Path) -> Store:
    """The store of an output folder.

    Raises
    ------
    ValueError
        Where there is none.
    """
    store = Store(output / "store")
    if not store.root.is_dir():
        raise ValueError(
            f"there is no store at '{store.root}': --output DIR names the folder that studies were written to "
            "(their paths.output)"
        )
    return store


def chosen(survey: Survey, words: Sequence[str]) -> list[Name]:
    """The artifacts that any of some words means: a kind, the beginning of a key, or ``kind/beginning``; all for none.

    Raises
    ------
    ValueError
        Where a word means none.
    """
    if not words:
        return survey.names
    kinds = {kind for kind, _ in survey.names}
    found: set[Name] = set()
    for word in words:
        meant = {name for name in survey.names if _means(word, name, kinds)}
        if not meant:
            raise ValueError(
                f"no artifact in '{survey.root}' is meant by '{word}': name the beginning of a key, kind/beginning, or "
                f"a kind ({', '.join(sorted(kinds)) or 'there are none'})"
            )
        found |= meant
    return [name for name in survey.names if name in found]


def _means(word: str, name: Name, kinds: Iterable[str]) -> bool:
    kind, key = name
    if "/" in word:
        return f"{kind}/{key}".startswith(word)
    return kind == word if word in kinds else key.startswith(word)


def bytes_of(survey: Survey, kind: str, key: str) -> int:
    """Size of an artifact's files, as its manifest says; of what lies there where it says nothing."""
    try:
        content = survey.manifest(kind, key)
        if content is not None:
            return sum(file["size"] for file in content["files"].values())
    except (CorruptArtifact, TypeError, KeyError, AttributeError):
        pass
    return bytes_in(survey.root / kind / key)


def bytes_in(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size if path.exists() else 0
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # a build that goes on meanwhile
                continue
    return total


def age_of(survey: Survey, kind: str, key: str, now: float | None = None) -> float:
    """Seconds since an artifact was made; since its folder was written where it does not say."""
    now = time.time() if now is None else now
    try:
        content = survey.manifest(kind, key)
        if content is not None:
            return now - datetime.fromisoformat(content["created"]).timestamp()
    except (CorruptArtifact, KeyError, ValueError, TypeError):
        pass
    return now - (survey.root / kind / key).stat().st_mtime


class States:
    """How artifacts stand to the code that is installed; each hash of sources is computed once."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self._sources: dict[tuple[str, frozenset[str]], str] = {}

    def source(self, kind: str, spec: object) -> str:
        """Hash of the code that would build it now; empty where that cannot be told (a module is not there)."""
        place = (kind, own_modules(spec))
        if place not in self._sources:
            try:
                self._sources[place] = source_of(kind, spec) if kind in SOURCES else ""
            except ValueError:
                self._sources[place] = ""
        return self._sources[place]

    def of(self, kind: str, key: str) -> str:
        """One of `STATES`."""
        try:
            content = self.survey.manifest(kind, key)
            if content is None:
                return "corrupt"
            source = self.source(kind, content["spec"])
            state = standing(content, self.survey.digests(content["parents"]), source)
        except CorruptArtifact:
            return "corrupt"
        if state == "fresh":
            return "cached" if source else "unknown"
        return state
