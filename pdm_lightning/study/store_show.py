"""``pdml store show``: all about one artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pdm_lightning import manifest
from pdm_lightning.manifest import CorruptArtifact
from pdm_lightning.spoken import duration, several, size, table
from pdm_lightning.store import Store
from pdm_lightning.study.described import Descriptions
from pdm_lightning.study.stored import STATES, States, age_of, chosen
from pdm_lightning.survey import Survey

CHILDREN = 20
"""So many are listed; the others are counted."""


def show(store: Store, word: str) -> int:
    """Print all about one artifact, its files checked; return the exit status: 1 where it is corrupt.

    Raises
    ------
    ValueError
        Where the word means none, or several.
    """
    survey = store.survey()
    names = chosen(survey, [word])
    if len(names) > 1:
        some = ", ".join("/".join(name) for name in names[:5])
        raise ValueError(f"'{word}' means {len(names)} artifacts, say more of the key: {some}")
    kind, key = names[0]
    fault = ""
    try:
        manifest.verify(survey.root / kind / key, kind, key)
    except FileNotFoundError:
        fault = "it has no manifest"
    except CorruptArtifact as error:
        fault = error.why
    print("\n".join(_About(survey).lines(kind, key, fault)))
    return int(bool(fault))


class _About:
    def __init__(self, survey: Survey) -> None:
        self.survey, self.words, self.states = survey, Descriptions(survey), States(survey)

    def lines(self, kind: str, key: str, fault: str) -> Iterator[str]:
        state = "corrupt" if fault else self.states.of(kind, key)
        yield f"{kind}/{key}  {self.words.of(key)}".rstrip()
        yield f"folder   {self.survey.root / kind / key}"
        yield f"status   {state}: {fault or STATES[state]}"
        try:
            content = self.survey.manifest(kind, key)
        except CorruptArtifact:
            content = None
        if content is None:
            return
        age, took = duration(age_of(self.survey, kind, key)), duration(content.get("seconds", 0.0))
        yield f"created  {content.get('created', '?')}, {age} ago, in {took}"
        now, then = self.states.source(kind, content["spec"]) or "unknown", content["source"] or "unknown"
        installed = "which is installed" if now == then else f"that which is installed is {now}"
        yield f"code     version {content.get('version', '?')}, source {then}, {installed}"
        yield from _section("settings", flat(content["spec"]))
        yield from _section("how it was made", flat(content.get("made") or {}))
        yield from _section("made of", self.parents(content["parents"]))
        yield from _section("used by", self.children(key))
        yield from _section("files", _files(content["files"], fault))

    def parents(self, parents: Mapping[str, str]) -> list[str]:
        rows = []
        for role, key in parents.items():
            kinds = self.survey.kinds.get(key, [])
            states = " ".join(self.states.of(kind, key) for kind in kinds) or "not in the store"
            rows.append((role, f"{'/'.join([*kinds[:1], key])}", states, self.words.of(key)))
        return _columns(rows)

    def children(self, key: str) -> list[str]:
        rows = []
        for kind, other in self.survey.names:
            try:
                content = self.survey.manifest(kind, other)
            except CorruptArtifact:
                continue
            if content is not None and key in content["parents"].values():
                rows.append((f"{kind}/{other}", self.states.of(kind, other), self.words.of(other)))
        more = [f"and {several(len(rows) - CHILDREN, 'other')}"] if len(rows) > CHILDREN else []
        return _columns(rows[:CHILDREN]) + more


def flat(settings: Mapping[str, Any], above: str = "") -> list[str]:
    """Settings as overrides are written: ``attack.eps=0.1``, a line each."""
    lines = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            lines += flat(value, f"{above}{key}.")
        else:
            told = str(value).lower() if isinstance(value, bool) else "null" if value is None else value
            lines.append(f"{above}{key}={told}")
    return lines


def _files(files: Mapping[str, Any], fault: str) -> list[str]:
    rows = [(name, size(file["size"]), file["sha256"]) for name, file in files.items()]
    verdict = f"damaged: {fault}; pdml store verify --remove takes it out, and a run builds it anew"
    return [
        *table(("name", "size", "sha256"), rows, right=("size",)),
        verdict if fault else "verified: all are as recorded",
    ]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    return table([""] * len(rows[0]), rows)[1:] if rows else []


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield title
        yield from (f"  {line}" for line in lines)
