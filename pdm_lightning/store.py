"""Where results live: every output is an artifact, named by the hash of what determines it.

``root/<kind>/<key>/`` holds an artifact's files and its ``manifest.json``; ``root/.partial/`` what is being
built, or was when its builder died; ``root/.locks/`` who builds what. An artifact appears at once and whole.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdm_lightning import durable, lease, manifest, partial
from pdm_lightning.full_disk import StoreFull, one_line_when_full
from pdm_lightning.manifest import MANIFEST, CorruptArtifact, artifact_key, source_hash
from pdm_lightning.survey import Survey, standing, word

__all__ = ["Artifact", "CorruptArtifact", "Store", "StoreFull", "Survey", "artifact_key", "source_hash"]

log = logging.getLogger(__name__)

ON_STALE = ("warn", "rebuild")


@dataclass(frozen=True)
class Artifact:
    """A published, read-only result.

    Attributes
    ----------
    kind, key : str
        What it is (``model``, ``features``, ...) and the hash of what determines it.
    path : Path
        Its folder.
    manifest : dict
        ``schema, kind, key, spec, parents, source, version, created, seconds, made, files``.
    """

    kind: str
    key: str
    path: Path
    manifest: dict[str, Any]

    def file(self, name: str) -> Path:
        """Return the path of one of its files (FileNotFoundError where it has none of that name)."""
        if name not in self.manifest["files"]:
            held = ", ".join(sorted(self.manifest["files"]))
            raise FileNotFoundError(f"{self.kind}/{self.key} holds no file '{name}'; it holds: {held}")
        return self.path / name

    def json(self, name: str) -> dict[str, Any]:
        """Read one of its JSON files."""
        value: dict[str, Any] = json.loads(self.file(name).read_text(encoding="utf-8"))
        return value


class Store:
    """A folder of artifacts, safe to share among processes and machines.

    Parameters
    ----------
    root : Path
        The store's folder; created when something is first built.
    on_stale : {"warn", "rebuild"}
        What `get` does with an artifact that another version of the source has built.
    """

    def __init__(self, root: str | Path, *, on_stale: str = "warn") -> None:
        if on_stale not in ON_STALE:
            raise ValueError(f"store.on_stale={on_stale!r} is unknown: use one of {', '.join(ON_STALE)}")
        self.root = Path(root)
        self.on_stale = on_stale
        self._told: set[str] = set()  # stale artifacts that were already warned of

    def path(self, kind: str, key: str) -> Path:
        """Return the folder of the artifact, whether or not it exists."""
        return self.root / kind / key

    def partial_path(self, kind: str, key: str) -> Path:
        """Return the folder in which the artifact is built: an interrupted build is continued there."""
        return partial.folder(self.root, kind, key)

    def lease_path(self, kind: str, key: str) -> Path:
        """Return the file that whoever builds the artifact holds."""
        return self.root / ".locks" / f"{kind}-{key}.json"

    def _state(self, kind: str, key: str, source: str) -> str:
        """Say how the artifact stands: ``missing``, ``fresh``, ``stale`` or ``orphaned``.

        Stale: built by other source. Orphaned: built from a parent that was built anew since.
        """
        folder = self.path(kind, key)
        if not (folder / MANIFEST).is_file():
            return "missing"
        content = manifest.read(folder)
        return standing(content, self._parent_digests(content["parents"]), source)

    def _parent_digests(self, parents: Mapping[str, str]) -> dict[str, str]:
        """Digest of the content of each parent that the store holds, by role."""
        digests = {}
        for role, key in parents.items():
            for path in self.root.glob(f"*/{key}/{MANIFEST}"):
                digests[role] = manifest.content_digest(path.parent)
        return digests

    def status(self, kind: str, key: str, source: str = "") -> str:
        """Tell how an artifact stands, without waiting or changing anything.

        Parameters
        ----------
        kind, key : str
            The artifact.
        source : str
            The hash of the source that would build it now; empty: any will do.

        Returns
        -------
        {"cached", "running", "stale", "orphaned", "partial", "missing", "corrupt"}
            Usable as it is; being built; built by other source; built from a parent that was built anew since;
            begun, but not finished; none of these; damaged.
        """
        try:
            state = self._state(kind, key, source)
        except CorruptArtifact:
            return "corrupt"
        held = self.lease_path(kind, key)
        return word(state, lambda: lease.is_held(held), self.partial_path(kind, key).is_dir)

    def survey(self, silent_for: float = lease.STALE_AFTER) -> Survey:
        """What the store holds now, for questions about many artifacts at once; see `Survey`."""
        return Survey(self.root, silent_for)

    def get(
        self,
        kind: str,
        spec: Mapping[str, Any],
        parents: Mapping[str, str],
        build: Callable[[Path], Mapping[str, Any] | None],
        *,
        source: str = "",
    ) -> Artifact:
        """Return the artifact that `spec` and `parents` determine; build it where it is missing.

        Only one process builds an artifact; others wait for it. Where an earlier builder was killed, or
        failed, `build` finds the files it left.

        Parameters
        ----------
        kind : str
            What is built; a folder of the store.
        spec : mapping
            The settings that determine the result: plain values only.
        parents : mapping of str to str
            Role -> key of each artifact that the result is computed from.
        build : callable
            Writes the files into the folder that it is given; what it returns stands in the manifest, as ``made``.
        source : str
            Hash of the source that builds it (`source_hash`); recorded, not part of the key.

        Raises
        ------
        CorruptArtifact
            Where the stored files are not what the manifest says.
        StoreFull
            Where the disk is full; what was built so far is kept.
        """
        key = artifact_key(kind, spec, parents)

        def usable() -> bool:
            state = self._state(kind, key, source)
            return state == "fresh" or (state == "stale" and self.on_stale == "warn")

        if not usable():
            what: dict[str, Any] = {"spec": spec, "parents": parents, "source": source}
            with one_line_when_full(self.root):
                what["parent_digests"] = self._parent_digests(parents)
                while not self._build(kind, key, what, build, usable):
                    log.warning("%s/%s: another process has taken over meanwhile; waiting for it", kind, key)
        if self._state(kind, key, source) != "fresh" and key not in self._told:
            self._told.add(key)
            log.warning("%s/%s was built by other source; store.on_stale=rebuild builds it anew", kind, key)
        return self.open(kind, key)

    def _build(
        self,
        kind: str,
        key: str,
        what: dict[str, Any],
        build: Callable[[Path], Mapping[str, Any] | None],
        usable: Callable[[], bool],
    ) -> bool:
        """Build and publish under the lease, unless somebody else does so first; False where it was lost meanwhile."""
        with lease.hold(self.lease_path(kind, key), f"{kind}/{key}", ready=usable) as held:
            if held is None or usable():
                return True
            try:
                self._build_under(held, kind, key, what, build)
            except Exception:
                if held.mine():
                    raise
                log.debug("%s/%s: what ended the robbed build", kind, key, exc_info=True)
                return False
        return True

    def _build_under(
        self,
        held: lease.Lease,
        kind: str,
        key: str,
        what: dict[str, Any],
        build: Callable[[Path], Mapping[str, Any] | None],
    ) -> None:
        """Go on with what is begun, or begin, and publish."""
        folder = self.partial_path(kind, key)
        if held.robbed:
            folder = partial.take_over(folder)
        source, parents = what["source"], what["parent_digests"]
        owed = partial.prepare(folder, source, parents, keep_other_source=self.on_stale == "warn")
        if not manifest.complete(folder, key, owed):
            (folder / MANIFEST).unlink(missing_ok=True)
            start = time.monotonic()
            made = build(folder) or {}
            held.check()
            seconds = time.monotonic() - start
            manifest.write(folder, kind, key, seconds=seconds, made=made, **what | {"source": owed})
        held.check()
        self._publish(folder, self.path(kind, key))

    def _publish(self, folder: Path, target: Path) -> None:
        """Move a finished folder into place; one rename, so that it appears whole."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # stale, or the ruins of one: a folder cannot be renamed onto a full one
            trash = self.root / ".trash" / f"{target.name}-{uuid.uuid4().hex[:8]}"
            trash.parent.mkdir(exist_ok=True)
            os.replace(target, trash)
            os.replace(folder, target)
            shutil.rmtree(trash, ignore_errors=True)
        else:
            os.replace(folder, target)
        durable.sync(target.parent)
        partial.forget(folder)

    def open(self, kind: str, key: str) -> Artifact:
        """Return a stored artifact after checking its files: sizes each time, hashes once a process.

        Raises
        ------
        FileNotFoundError
            Where the store does not hold it.
        CorruptArtifact
            Where its files are not what its manifest says.
        """
        folder = self.path(kind, key)
        if not (folder / MANIFEST).is_file():
            raise FileNotFoundError(f"the store at '{self.root}' holds no artifact {kind}/{key}")
        return Artifact(kind, key, folder, manifest.verify(folder, kind, key))

    def find(self, key_prefix: str) -> Artifact:
        """Return the one artifact whose key, or ``kind/key``, begins with `key_prefix`."""
        names = [(kind, key) for kind, key in self._names() if _begins(kind, key, key_prefix)]
        if len(names) == 1:
            return self.open(*names[0])
        if not names:
            raise FileNotFoundError(f"no artifact in '{self.root}' has a key that begins with '{key_prefix}'")
        some = ", ".join("/".join(name) for name in names[:5])
        raise ValueError(f"'{key_prefix}' is the beginning of {len(names)} keys, say more of it: {some}")

    def list(self) -> Iterator[Artifact]:
        """Go through all artifacts, by kind and key, without checking their files."""
        for kind, key in self._names():
            folder = self.path(kind, key)
            yield Artifact(kind, key, folder, manifest.read(folder))

    def _names(self) -> Iterator[tuple[str, str]]:
        for path in sorted(self.root.glob(f"*/*/{MANIFEST}")):
            kind, key = path.parts[-3:-1]
            if not kind.startswith("."):
                yield kind, key


def _begins(kind: str, key: str, prefix: str) -> bool:
    return (f"{kind}/{key}" if "/" in prefix else key).startswith(prefix)
