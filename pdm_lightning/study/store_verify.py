"""``pdml store verify``: every file of every artifact held against its hash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdm_lightning import cleaning, lease, manifest
from pdm_lightning.manifest import MANIFEST, CorruptArtifact
from pdm_lightning.progress import Progress
from pdm_lightning.spoken import several, size
from pdm_lightning.store import Store
from pdm_lightning.study.stored import bytes_of, chosen
from pdm_lightning.survey import Name, Survey

_REMOVE = "pdml store verify --remove takes it out, and a run builds it anew"


@dataclass(frozen=True)
class Fault:
    """What is wrong with an artifact.

    Attributes
    ----------
    name : Name
    why, mend : str
    removable : bool
        Whether a run builds it anew once it is out of the way, and not before.
    """

    name: Name
    why: str
    mend: str = _REMOVE
    removable: bool = True

    def __str__(self) -> str:
        return f"{'/'.join(self.name)}: {self.why}; {self.mend}"


def verify(store: Store, words: Sequence[str], *, remove: bool = False, progress: bool = True) -> int:
    """Check the artifacts that are meant and print a line for each fault.

    Parameters
    ----------
    remove : bool
        Move what a run can build anew out of the way, into the store's trash.

    Returns
    -------
    int
        Exit status: 1 where a fault is left.
    """
    survey = store.survey()
    names = chosen(survey, words)
    found: list[Fault] = []
    checked = 0
    with Progress(len(names), "verify", enabled=progress) as bar:
        for name in names:
            found += faults(store, survey, name)
            checked += bytes_of(survey, *name)
            bar.update(read=size(checked))
    left = [fault for fault in found if not (remove and _removed(store, fault))]
    for fault in found:
        print(fault if fault in left else f"{'/'.join(fault.name)}: {fault.why}; taken out")
    bad = len({fault.name for fault in found})
    verdict = f"{several(len(found), 'fault')} in {bad:,} of them" if found else "all as they should be"
    print(f"{several(len(names), 'artifact')}, {size(checked)}: {verdict}")
    return int(bool(left))


def faults(store: Store, survey: Survey, name: Name) -> Iterator[Fault]:
    """What is wrong with one artifact: its name, its manifest, its files, or what it was made of."""
    kind, key = name
    folder = survey.root / kind / key
    if not (re.fullmatch(r"[a-z][a-z0-9_]*", kind) and re.fullmatch(r"[0-9a-f]{16}", key)):
        yield Fault(name, "this is no artifact's name", f"move '{folder}' out of the store", removable=False)
        return
    try:
        content = manifest.verify(folder, kind, key)
    except (CorruptArtifact, OSError) as error:
        if lease.is_held(store.lease_path(kind, key)):
            return  # being built anew: what was read is half of the old one and half of the new
        gone = isinstance(error, FileNotFoundError)
        if gone and not folder.exists():
            return  # replaced or deleted meanwhile
        yield Fault(name, error.why if isinstance(error, CorruptArtifact) else _words(error, gone))
        return
    strays = sorted(set(_files(folder)) - {MANIFEST, *content["files"]})
    if strays:
        yield Fault(
            name,
            f"holds '{strays[0]}', which its manifest does not name",
            "delete that file",
            removable=False,
        )
    yield from _of_parents(survey, name, content)


def _of_parents(survey: Survey, name: Name, content: dict) -> Iterator[Fault]:
    try:
        now = survey.digests(content["parents"])
    except CorruptArtifact:
        return  # the parent's own fault
    for role, key in content["parents"].items():
        if role not in now:
            why = f"its {role}, {key}, is not in the store"
            yield Fault(
                name,
                why,
                "a run builds both anew where a study needs them",
                removable=False,
            )
        elif content.get("parent_digests", {}).get(role, now[role]) != now[role]:
            yield Fault(
                name, f"was made of another {role} than {key} that is in the store", "a run builds it anew"
            )


def _words(error: OSError, gone: bool) -> str:
    return f"it has no {MANIFEST}" if gone else f"cannot be read ({error.strerror})"


def _files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _removed(store: Store, fault: Fault) -> bool:
    return fault.removable and cleaning.set_aside(store, *fault.name) is not None
