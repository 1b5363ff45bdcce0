"""An artifact's name and its manifest: what determined it, who built it, and the hashes of its files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from pdm_lightning import durable

SCHEMA = 1
"""Version of the keys and the manifest; a change of it makes every artifact a new one."""

MANIFEST = "manifest.json"

_KIND, _KEY = re.compile(r"[a-z][a-z0-9_]*"), re.compile(r"[0-9a-f]{16}")
_verified: set[tuple[str, int]] = set()  # folder and manifest's time of those whose hashes were checked


class CorruptArtifact(RuntimeError):
    """An artifact's files are not what its manifest says; ``why`` is the reason alone."""

    why = ""


def artifact_key(kind: str, spec: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """Return the key of what `spec` and `parents` determine.

    Parameters
    ----------
    kind : str
        What it is: letters, digits and underscores, as it names a folder.
    spec : mapping
        Settings: None, bool, numbers, text, lists and mappings with text keys. The order of keys does not
        matter, and a whole number is the same as int and as float (``lr=1`` and ``lr=1.0``).
    parents : mapping of str to str
        Role -> key of the artifacts it is computed from.

    Returns
    -------
    str
        The first 16 hexadecimal digits of the SHA-256 of the canonical JSON.
    """
    return key_of(kind, canonical(spec), parents)


def key_of(kind: str, spec: str, parents: Mapping[str, str]) -> str:
    """`artifact_key` of settings that are `canonical` text already: many artifacts of a plan share theirs."""
    if not _KIND.fullmatch(kind):
        raise ValueError(f"the kind {kind!r} names a folder: use lower-case letters, digits and underscores")
    for role, parent in parents.items():
        if not _KEY.fullmatch(str(parent)):
            raise ValueError(
                f"the parent '{role}' of a {kind} is given as {parent!r}, which is no artifact key"
            )
    whole = f'{{"kind":"{kind}","parents":{canonical(parents)},"schema":{SCHEMA},"spec":{spec}}}'
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def canonical(value: Any) -> str:
    """Write plain values as JSON that is the same for the same content."""
    return json.dumps(_plain(value, ""), sort_keys=True, separators=(",", ":"))


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"the setting '{where}' is {value}: only finite numbers can be part of a key")
        return int(value) if value.is_integer() else value
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"the setting '{where}' has the name {name!r}: names have to be text")
        return {name: _plain(item, f"{where}.{name}".lstrip(".")) for name, item in value.items()}
    raise TypeError(
        f"the setting '{where}' is a {type(value).__name__}: only plain values can be part of a key"
    )


def source_hash(modules: Sequence[str]) -> str:
    """Hash the source of modules, and of packages with all they hold, by dotted name (16 hex digits)."""
    digest = hashlib.sha256()
    for name in sorted(set(modules)):
        digest.update(f"{name}={_module_hash(name)}\n".encode())
    return digest.hexdigest()[:16]


@cache
def _module_hash(name: str) -> str:
    try:
        spec = _find(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise ValueError(f"there is no module '{name}' whose source could be hashed")
    digest = hashlib.sha256()
    for label, path in _sources(spec.origin, spec.submodule_search_locations):
        digest.update(f"{label}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _find(name: str) -> ModuleSpec | None:
    """A module's spec; `importlib.util.find_spec` would import the packages around it, PyTorch and all."""
    top, *inner = name.split(".")
    spec, path = importlib.util.find_spec(top), top
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        path = f"{path}.{part}"
        spec = PathFinder.find_spec(path, spec.submodule_search_locations)
    return spec or importlib.util.find_spec(name)  # a package may have finders of its own


def _sources(origin: str | None, folders: Sequence[str] | None) -> Iterator[tuple[str, Path]]:
    if not folders:
        yield "", Path(str(origin))
        return
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            yield path.relative_to(folder).as_posix(), path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _version() -> str:
    try:
        return importlib.metadata.version("pdm-lightning")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write(folder: Path, kind: str, key: str, *, seconds: float, **what: Any) -> None:
    """Put the folder's files on the disk, then describe them in its manifest, which comes last.

    Parameters
    ----------
    folder : Path
        Holds the files; links and temporary files are not part of an artifact and are removed.
    kind, key : str
        The artifact.
    seconds : float
        How long the last build took.
    **what : Any
        ``spec``, ``parents``, ``parent_digests``, ``source``, and ``made``: how it was made, where that is of interest.
    """
    files = {}
    durable.sweep(folder)
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            durable.sync(path)
        else:
            durable.sync(path)
            name = path.relative_to(folder).as_posix()
            files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    if not files:
        raise ValueError(f"the build of {kind}/{key} wrote no file into '{folder}'")
    content = {
        "schema": SCHEMA,
        "kind": kind,
        "key": key,
        "version": _version(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "files": files,
        **what,
    }
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, default=dict)
    durable.write_text(folder / MANIFEST, text + "\n")


def read(folder: Path) -> dict[str, Any]:
    """Read a folder's manifest (CorruptArtifact where it cannot be read as one)."""
    try:
        with open(f"{folder}/{MANIFEST}", "rb") as file:
            content = json.loads(file.read())
        if {"schema", "kind", "key", "spec", "parents", "source", "files"} <= content.keys():
            return dict(content)
    except (ValueError, AttributeError):
        pass
    raise _corrupt(folder, "its manifest is damaged")


def content_digest(folder: Path) -> str:
    """Digest of what a folder's manifest says of its files (16 hex digits): another content, another digest."""
    return files_digest(read(folder)["files"])


def files_digest(files: Mapping[str, Any]) -> str:
    """`content_digest` of the files that a manifest names."""
    text = json.dumps(
        files, sort_keys=True, separators=(",", ":")
    )  # `canonical`, of names, sizes and hashes alone
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def complete(folder: Path, key: str, source: str) -> bool:
    """Whether a folder was finished (its manifest written, its files intact), but not yet published."""
    try:
        return read(folder)["source"] == source and bool(verify(folder, read(folder)["kind"], key))
    except (FileNotFoundError, CorruptArtifact):
        return False


def verify(folder: Path, kind: str, key: str) -> dict[str, Any]:
    """Read a manifest and hold the folder against it: sizes each time, hashes once a process.

    Raises
    ------
    CorruptArtifact
        One line: what is wrong, and which folder to delete.
    """
    content = read(folder)
    if (content["kind"], content["key"]) != (kind, key):
        raise _corrupt(folder, f"its manifest is that of {content['kind']}/{content['key']}")
    if artifact_key(kind, content["spec"], content["parents"]) != key:
        raise _corrupt(folder, "its manifest's settings do not lead to its key")
    once = (str(folder.resolve()), (folder / MANIFEST).stat().st_mtime_ns)
    for name, expected in content["files"].items():
        path = folder / name
        if not path.is_file():
            raise _corrupt(folder, f"'{name}' is missing")
        if path.stat().st_size != expected["size"]:
            raise _corrupt(folder, f"'{name}' has {path.stat().st_size} bytes instead of {expected['size']}")
        if once not in _verified and _sha256(path) != expected["sha256"]:
            raise _corrupt(folder, f"the content of '{name}' has changed")
    _verified.add(once)
    return content


def _corrupt(folder: Path, why: str) -> CorruptArtifact:
    error = CorruptArtifact(f"the artifact in '{folder}' is corrupt: {why}; delete that folder and run again")
    error.why = why
    return error
