"""What may go from a store: nothing that a study names, that is young or being built, or that these are made of."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pdm_lightning import partial
from pdm_lightning.manifest import CorruptArtifact
from pdm_lightning.spoken import duration
from pdm_lightning.study.stored import age_of
from pdm_lightning.survey import Leftover, Name, Survey


@dataclass(frozen=True)
class Rule:
    """What stays without being named by a study.

    Attributes
    ----------
    older_than : float
        Seconds: what is younger stays.
    keep : sequence of str
        Keys that stay.
    """

    older_than: float
    keep: Sequence[str] = ()


@dataclass
class Rubbish:
    """What may go.

    Attributes
    ----------
    kept : dict of Name to str
        Why each artifact that stays is kept.
    artifacts : list of Name
        Each before its own parents, so that whatever is left at any moment has all of its own.
    leftovers : list of Leftover
        Dead builds, dead leases, the trash.
    """

    kept: dict[Name, str] = field(default_factory=dict)
    artifacts: list[Name] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)


def find(
    survey: Survey, studies: Mapping[str, Iterable[str]], rule: Rule, now: float | None = None
) -> Rubbish:
    """Tell what may go from what has to stay.

    Kept are the artifacts that a study names, those whose key is asked for, those that are younger, those that are
    being built, and all that any of these was made of. A build that nobody works on goes when it is older and no study
    names it; leases of the dead and the trash go in any case.

    Parameters
    ----------
    survey : Survey
    studies : mapping of str to iterable of str
        By name of a study, the keys that it names.
    rule : Rule
    now : float, optional
        Seconds since the epoch.
    """
    now = time.time() if now is None else now
    reasons = {key: study for study in reversed(list(studies)) for key in studies[study]}
    reasons |= dict.fromkeys(rule.keep, "--keep")
    found = Rubbish()
    for kind, key in survey.names:
        reason = reasons.get(key, "")
        if not reason and f"{kind}-{key}" in survey.held:
            reason = "being built"
        if not reason and age_of(survey, kind, key, now) < rule.older_than:
            reason = f"younger than {duration(rule.older_than)}"
        if reason:
            _keep(survey, (kind, key), reason, found.kept)
    found.artifacts = _children_first(survey, [name for name in survey.names if name not in found.kept])
    found.leftovers = [left for left in survey.leftovers() if _dead(left, reasons, rule, now)]
    return found


def _keep(survey: Survey, name: Name, reason: str, kept: dict[Name, str]) -> None:
    """Keep an artifact and, for the same reason, all that it was made of."""
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in kept:
            kept[one] = reason
            waiting += _parents(survey, one)


def _parents(survey: Survey, name: Name) -> list[Name]:
    """Those that the store holds; none where a damaged manifest does not tell."""
    try:
        content = survey.manifest(*name)
    except CorruptArtifact:
        return []
    keys = content["parents"].values() if content else ()
    return [(kind, key) for key in keys for kind in survey.kinds.get(key, ())]


def _children_first(survey: Survey, names: Sequence[Name]) -> list[Name]:
    left, order, seen = set(names), list[Name](), set[Name]()
    for start in names:
        stack: list[tuple[Name, bool]] = [(start, False)]
        while stack:
            name, parents_done = stack.pop()
            if parents_done:
                order.append(name)
            elif name not in seen and name in left:
                seen.add(name)
                stack += [(name, True), *((parent, False) for parent in _parents(survey, name))]
    return order[::-1]


def _dead(left: Leftover, wanted: Container[str], rule: Rule, now: float) -> bool:
    """Whether nobody works on a leftover, nor would go on with it."""
    if left.held or left.what != "partial":
        return not left.held
    name = partial.built_in(left.path.name)
    # a folder and the note beside it stay or go together: without its note, a build that is taken up begins anew
    touched = max((_touched(path) for path in left.path.parent.glob(f"{name}*")), default=0.0)
    return name.rpartition("-")[2] not in wanted and now - touched >= rule.older_than


def _touched(path: Path) -> float:
    """When anything in a folder was last written."""
    times = [path.lstat().st_mtime] if path.exists() else [0.0]
    return max([*times, *(inner.lstat().st_mtime for inner in path.rglob("*"))])
