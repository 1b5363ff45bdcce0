"""One side of a comparison: the study that a word names, its rows, and the stores that may hold its artifacts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdm_lightning.errors import nearest
from pdm_lightning.report.matched import NAMES, is_difference, repeated
from pdm_lightning.report.rows import Row, read_csv

RESULTS = "results.csv"
#: What rows may be chosen by.
FILTERS = (*NAMES, "metric")


@dataclass(frozen=True)
class Side:
    """A study, or a defence of it.

    Attributes
    ----------
    word : str
        As typed.
    path : Path
        Of its ``results.csv``.
    defense : str
        The one that it is narrowed to; empty for all.
    rows : list of Row
        Those that are compared: all of its study, or of the defence, that are no differences themselves.
    """

    word: str
    path: Path
    defense: str
    rows: list[Row]

    @property
    def study(self) -> str:
        """The study's short name."""
        return self.path.resolve().parent.name if self.path.name == RESULTS else self.path.stem

    @property
    def name(self) -> str:
        """The same, with the defence."""
        return f"{self.study}:{self.defense}" if self.defense else self.study

    @property
    def store(self) -> Path:
        """The store beside a report in ``<output>/report/<name>/``, whether or not it is there."""
        return self.path.resolve().parent.parent.parent / "store"


def studies(output: Path) -> list[str]:
    """Names of the studies of an output folder that have results."""
    return sorted(path.parent.name for path in (output / "report").glob(f"*/{RESULTS}"))


def read_side(word: str, output: Path) -> Side:
    """Find and read what a word names.

    Parameters
    ----------
    word : str
        A name under ``<output>/report``, a report's folder or a CSV file, each also followed by ``:defence``.
    output : Path
        The output folder.

    Raises
    ------
    ValueError
        For an unknown study or defence, a file that is none of results, or one that holds a cell twice.
    """
    path, defense = _find(word, output), ""
    if path is None:
        study, colon, defense = word.rpartition(":")
        path = _find(study, output) if colon and study else None
        if path is not None and not defense:
            raise ValueError(f"'{word}' names no defence after the colon: {study}:NAME, or {study} for all")
        if path is None:
            raise ValueError(_unknown(study if colon and study else word, output))
    rows = _read(path)
    known = list(dict.fromkeys(row.defense for row in rows))
    if defense and defense not in known:
        raise ValueError(
            f"'{path}' has no defence '{defense}'{nearest(defense, known)} (it has {', '.join(known) or 'none'})"
        )
    kept = [row for row in rows if defense in ("", row.defense) and not is_difference(row)]
    return Side(word, path, defense, kept)


def _find(word: str, output: Path) -> Path | None:
    named = output / "report" / word
    for path in (named, Path(os.path.expanduser(word))) if word else ():
        if (path / RESULTS).is_file():
            return path / RESULTS
        if path.is_file():
            return path
    return None


def _read(path: Path) -> list[Row]:
    try:
        rows = read_csv(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: name a results.csv, or the folder that holds it") from error
    except ValueError as error:
        raise ValueError(
            f"{error}: name a whole results.csv; 'pdml report' writes that of a study anew"
        ) from error
    if not rows:
        raise ValueError(f"{path} holds no results: 'pdml run' with the study's words computes them")
    twice = repeated(rows)
    if twice is not None:
        cell = " ".join(str(getattr(twice, name)) for name in FILTERS if getattr(twice, name) != "")
        raise ValueError(
            f"{path} holds a cell twice ({cell}): 'pdml report' with the study's words writes it anew"
        )
    return rows


def _unknown(word: str, output: Path) -> str:
    """Say that there is no such study, and what there is."""
    for path in (output / "report" / word, Path(os.path.expanduser(word))):
        if path.is_dir():
            return (
                f"'{path}' holds no {RESULTS}: 'pdml run' or 'pdml report' with the study's words writes it"
            )
    parent = Path(os.path.expanduser(word)).parent
    beside = [f"{parent}/{path.parent.name}" for path in parent.glob(f"*/{RESULTS}")] if "/" in word else []
    known = [*studies(output), *sorted(beside)]
    told = (
        ", ".join(known) if known else f"none in '{output / 'report'}': --output DIR, or a path, says where"
    )
    return f"no study '{word}'{nearest(word, known)} (there are: {told})"


def chosen(rows: Iterable[Row], filters: Sequence[tuple[str, list[str]]]) -> list[Row]:
    """The rows that all filters let through: pairs of a column of `FILTERS` and the names that it may have."""
    return [row for row in rows if all(_passes(row, key, names) for key, names in filters)]


def _passes(row: Row, key: str, names: Iterable[str]) -> bool:
    found = str(getattr(row, key))
    # joint_success stands for itself at every false-positive rate
    return found in names or (key == "metric" and found.partition("@")[0] in names)


def read_filter(word: str) -> tuple[str, list[str]]:
    """Column and names of ``attack=bim_005,bim_010``; a comma within brackets belongs to a name.

    Raises
    ------
    ValueError
        For an unknown column or no name.
    """
    key, _, value = word.partition("=")
    if key not in FILTERS:
        raise ValueError(
            f"'{word}' chooses by an unknown column '{key}'{nearest(key, FILTERS)} ({', '.join(FILTERS)})"
        )
    names, depth = [""], 0
    for char in value:
        depth += {"[": 1, "]": -1}.get(char, 0)
        if char == "," and depth == 0:
            names.append("")
        else:
            names[-1] += char
    if "" in names:
        raise ValueError(f"'{word}' names nothing: {key}=NAME, or {key}=NAME,NAME")
    return key, names


def check_filters(filters: Sequence[tuple[str, list[str]]], rows: Sequence[Row]) -> None:
    """Raise a ValueError for a name that no row has."""
    for key, names in filters:
        known = dict.fromkeys(str(getattr(row, key)) for row in rows)
        known |= dict.fromkeys(name.partition("@")[0] for name in known if key == "metric")
        for name in names:
            if name not in known:
                there = ", ".join(one for one in known if one)
                raise ValueError(
                    f"{key}={name}: neither side has it{nearest(name, known)} (there are: {there})"
                )
