"""``pdml store gc``: what no study that is kept needs, and nobody is building."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pdm_lightning import cleaning
from pdm_lightning.spoken import duration, quiet, several, size, table
from pdm_lightning.store import Store
from pdm_lightning.study.described import Descriptions
from pdm_lightning.study.kept import named, signature
from pdm_lightning.study.rubbish import Rubbish, Rule, find
from pdm_lightning.study.stored import age_of, bytes_in, bytes_of
from pdm_lightning.survey import Leftover, Name, Survey

_NUMBERS = ("artifacts", "size", "age")
_WORDS = {"partial": "build that was given up", "lease": "lease of a dead process", "trash": "trash"}


def gc(
    store: Store,
    output: Path,
    rule: Rule,
    *,
    yes: bool = False,
    reckless: bool = False,
    typed: str = "pdml store gc",
) -> int:
    """Print what may go and, where `yes` says so, delete it; return the exit status.

    Parameters
    ----------
    reckless : bool
        Delete also where no study at all is on record.
    typed : str
        The command, for the line that says how to delete.

    Raises
    ------
    ValueError
        Where a key is not in the store; where nothing, or not all that is running, is on record.
    OSError
        Where a record cannot be read.
    """
    survey, noted = store.survey(cleaning.SILENT), signature(output)
    unknown = [key for key in rule.keep if key not in survey.kinds]
    if unknown:
        raise ValueError(
            f"--keep {unknown[0]}: no artifact in '{store.root}' has this key; pdml store ls lists them"
        )
    studies = on_record(output)
    found = find(survey, studies, rule)
    print("\n".join([*_kept(survey, found, studies), *_going(survey, found, listed=not yes)]))
    if not (found.artifacts or found.leftovers):
        return 0
    why_not = _doubt(survey, studies, output, reckless) if found.artifacts else ""
    if not yes:
        print(why_not or f"this was a dry run: {typed} --yes deletes them")
        return 0
    if why_not:
        raise ValueError(why_not)
    return _delete(store, output, found, rule, noted)


def on_record(output: Path) -> dict[str, frozenset[str]]:
    """The keys that each study names, by ``report/<name>`` or ``tune/<name>``."""
    return {f"{folder.parent.name}/{folder.name}": keys for folder, keys in named(output).items()}


def _doubt(survey: Survey, studies: Mapping[str, Iterable[str]], output: Path, reckless: bool) -> str:
    """Why nothing should be deleted; empty where nothing speaks against it."""
    known = {key for keys in studies.values() for key in keys}
    strange = sorted(name for name in survey.held if name.rpartition("-")[2] not in known)
    if strange:
        return (
            f"{strange[0]} is being built, and no study has it on record: nobody can tell what it is made of; "
            "wait for it, then --yes deletes"
        )
    if not studies and not reckless:
        return (
            f"no study is on record in '{output}', so nothing says which results are still wanted: "
            "--yes --without-studies deletes all the same"
        )
    return ""


def _delete(
    store: Store, output: Path, found: Rubbish, rule: Rule, noted: frozenset[tuple[str, int, int]]
) -> int:
    """Delete one by one; a study that begins meanwhile notes its artifacts first, and they stay."""
    from pdm_lightning.progress import Progress

    survey, freed, spared = store.survey(), 0, 0
    everything: list[Name | Leftover] = [*found.artifacts, *found.leftovers]
    going = set(everything)
    # to take a dead builder's lease over is the purpose here, and nothing to warn of
    with Progress(len(everything), "delete") as progress, quiet("pdm_lightning.lease"):
        for one in everything:
            if (seen := signature(output)) != noted:
                noted, now = seen, find(store.survey(cleaning.SILENT), on_record(output), rule)
                going &= {*now.artifacts, *now.leftovers}
            gone, count = False, 0
            if one in going and isinstance(one, Leftover):
                count, gone = bytes_in(one.path), cleaning.clear(store, one, rule.older_than)
            elif one in going and not isinstance(one, Leftover):
                count, gone = bytes_of(survey, *one), cleaning.delete(store, *one)
            freed += count if gone else 0
            spared += not gone
            progress.update()
    stayed = f"; {several(spared, 'thing')} stayed: taken up, or gone, meanwhile" if spared else ""
    print(f"freed {size(freed)}{stayed}")
    return 0


def _kept(survey: Survey, found: Rubbish, studies: Iterable[str]) -> Iterator[str]:
    """Lines that say what is kept, and why."""
    counts, sizes = Counter[str](), Counter[str]()
    for name, reason in found.kept.items():
        counts[reason] += 1
        sizes[reason] += bytes_of(survey, *name)
    yield f"kept: {several(len(found.kept), 'artifact')}, {size(sizes.total())}"
    counts.update(dict.fromkeys(studies, 0))
    rows = [(f"  {reason}", f"{count:,}", size(sizes[reason])) for reason, count in counts.items()]
    if rows:
        yield from table(("  because of", "artifacts", "size"), rows, right=_NUMBERS)
    yield ""


def _going(survey: Survey, found: Rubbish, *, listed: bool) -> Iterator[str]:
    """Lines that say what would go, each thing where they are to be `listed`, and how much that is."""
    if found.artifacts and listed:
        words, now = Descriptions(survey), time.time()
        yield from table(
            ("kind", "key", "size", "age", "what"),
            [
                (
                    *name,
                    size(bytes_of(survey, *name)),
                    duration(age_of(survey, *name, now)),
                    words.of(name[1]),
                )
                for name in sorted(found.artifacts)
            ],
            right=_NUMBERS,
        )
        yield ""
    for left in found.leftovers if listed else ():
        yield f"{_WORDS[left.what]}  {left.path.name}  {size(bytes_in(left.path))}"
    freed = sum(bytes_of(survey, *name) for name in found.artifacts)
    freed += sum(bytes_in(left.path) for left in found.leftovers)
    parts = [several(len(found.artifacts), "artifact")] if found.artifacts else []
    parts += [several(len(found.leftovers), "leftover")] if found.leftovers else []
    yield f"to delete: {' and '.join(parts)}, {size(freed)}" if parts else "nothing to delete"
