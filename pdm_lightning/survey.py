"""What a store holds at one moment: a listing of each folder, and a manifest a time as it is asked for.

To ask a store for the status of thousands of artifacts one by one means as many looks into its folders; a survey looks
once. It changes nothing, and takes neither a lease nor a hash of files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pdm_lightning import lease, manifest, partial
from pdm_lightning.manifest import CorruptArtifact

Name = tuple[str, str]
"""Kind and key."""


@dataclass(frozen=True)
class Leftover:
    """What a build left behind, or is working on: it is no artifact.

    Attributes
    ----------
    what : {"partial", "lease", "trash"}
        A folder that is built in, a lease on a name, a folder that was to be deleted.
    path : Path
    held : bool
        Whether a live process holds the lease of that name: it must be left alone.
    """

    what: str
    path: Path
    held: bool = False


class Survey:
    """A store at the moment of the first question.

    Parameters
    ----------
    root : Path
        The store's folder; where there is none, it holds nothing.
    silent_for : float
        Seconds without a heartbeat, by this machine's clock, after which a holder of another machine is dead.
    """

    def __init__(self, root: Path, silent_for: float = lease.STALE_AFTER) -> None:
        self.root, self.silent_for = root, silent_for
        self._manifests: dict[Name, dict[str, Any] | CorruptArtifact | None] = {}
        self._digests: dict[Name, str] = {}

    @cached_property
    def names(self) -> list[Name]:
        """Kind and key of every artifact, in order; also of those whose manifest is missing or damaged."""
        kinds = [entry.name for entry in _entries(self.root) if not entry.name.startswith(".")]
        return [
            (kind, entry.name)
            for kind in sorted(kinds)
            for entry in _entries(self.root / kind)
            if entry.is_dir()
        ]

    @cached_property
    def kinds(self) -> dict[str, list[str]]:
        """The kinds of artifact that have a key: more than one where a key is held twice."""
        found: dict[str, list[str]] = {}
        for kind, key in self.names:
            found.setdefault(key, []).append(kind)
        return found

    @cached_property
    def partial(self) -> frozenset[str]:
        """Names, as ``kind-key``, that somebody builds or built."""
        return frozenset(partial.built_in(e.name) for e in _entries(self.root / partial.FOLDER) if e.is_dir())

    @cached_property
    def held(self) -> frozenset[str]:
        """Names, as ``kind-key``, whose lease a live process holds."""
        folder = self.root / ".locks"
        leases = (entry.name for entry in _entries(folder) if entry.name.endswith(".json"))
        return frozenset(
            name.removesuffix(".json") for name in leases if lease.is_held(folder / name, self.silent_for)
        )

    def leftovers(self) -> list[Leftover]:
        """Everything in the store that is no artifact, but for the lock that leases are made under."""
        found = [
            Leftover("partial", Path(entry.path), partial.built_in(entry.name) in self.held)
            for entry in _entries(self.root / partial.FOLDER)
        ]
        found += [
            Leftover("lease", Path(entry.path), entry.name.removesuffix(".json") in self.held)
            for entry in _entries(self.root / ".locks")
            if entry.name != ".guard"
        ]
        return found + [Leftover("trash", Path(entry.path)) for entry in _entries(self.root / ".trash")]

    def manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        """Manifest of an artifact, read once; None where there is none.

        Raises
        ------
        CorruptArtifact
            Where it cannot be read as one.
        """
        name = (kind, key)
        if name not in self._manifests:
            try:
                self._manifests[name] = manifest.read(self.root / kind / key)
            except (FileNotFoundError, NotADirectoryError):
                self._manifests[name] = None
            except CorruptArtifact as error:
                self._manifests[name] = error
        found = self._manifests[name]
        if isinstance(found, CorruptArtifact):
            raise found
        return found

    def digests(self, parents: Mapping[str, str]) -> dict[str, str]:
        """Digest of the content of each parent, given by role and key, that the store holds."""
        found = {}
        for role, key in parents.items():
            for kind in self.kinds.get(key, ()):
                content = self.manifest(kind, key)
                if content is not None:
                    if (kind, key) not in self._digests:
                        self._digests[kind, key] = manifest.files_digest(content["files"])
                    found[role] = self._digests[kind, key]
        return found

    def status(self, kind: str, key: str, source: str = "") -> str:
        """How an artifact stands, in the words of `Store.status`."""
        state = "missing"
        try:
            content = self.manifest(kind, key) if kind in self.kinds.get(key, ()) else None
            if content is not None:
                state = standing(content, self.digests(content["parents"]), source)
        except CorruptArtifact:
            return "corrupt"
        name = f"{kind}-{key}"
        return word(state, lambda: name in self.held, lambda: name in self.partial)


def standing(content: Mapping[str, Any], parents: Mapping[str, str], source: str) -> str:
    """How an artifact stands to what it was made of.

    Parameters
    ----------
    content : mapping
        Its manifest.
    parents : mapping of str to str
        By role, the digest of the content of each parent that there is.
    source : str
        The hash of the source that would build it now; empty: any will do.

    Returns
    -------
    {"fresh", "stale", "orphaned"}
        Stale: built by other source. Orphaned: built from a parent that was built anew since.
    """
    before = content.get("parent_digests", {})
    if any(parents.get(role, digest) != digest for role, digest in before.items()):
        return "orphaned"
    return "fresh" if not source or content["source"] == source else "stale"


def word(state: str, held: Callable[[], bool], partial: Callable[[], bool]) -> str:
    """The word of `Store.status` for a standing or ``missing``; held and begun are asked where they count."""
    if state == "fresh":
        return "cached"
    if held():
        return "running"
    if state != "missing":
        return state
    return "partial" if partial() else "missing"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, in order; nothing where there is none."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
