"""The cells of a study as grids for W&B's own agents, each of which takes the next cell that nobody has taken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

#: What W&B allows as a name of a parameter.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
Grid = dict[str, list[str]]


def grids(cells: Iterable[Sequence[str]]) -> list[Grid]:
    """Full grids that hold exactly the given cells.

    A sweep of W&B is one full grid; an experiment may be several, or a grid with holes.

    Parameters
    ----------
    cells : iterable of sequence of str
        Overrides of each cell, as ``("defense=ce", "attack=bim_010")``.

    Returns
    -------
    list of dict
        Of each grid, the values of each key. Every value of a key goes with every value of the others. A key that W&B
        takes for no parameter's name has one value only.
    """
    kinds: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for cell in cells:
        pairs = [override.partition("=") for override in cell]
        points = kinds.setdefault(tuple(key for key, _, _ in pairs), [])
        point = tuple(value for _, _, value in pairs)
        if point not in points:
            points.append(point)
    return [grid for keys, points in kinds.items() for grid in _split(keys, points)]


def _split(keys: tuple[str, ...], points: list[tuple[str, ...]]) -> list[Grid]:
    for axis, key in enumerate(keys):
        classes = _classes(points, axis, apart=not _NAME.fullmatch(key))
        if len(classes) > 1:
            return [grid for part in classes for grid in _split(keys, part)]
    # for every key, all of its values go with the same values of the others: a product
    return [{key: list(dict.fromkeys(point[axis] for point in points)) for axis, key in enumerate(keys)}]


def _classes(points: list[tuple[str, ...]], axis: int, apart: bool) -> list[list[tuple[str, ...]]]:
    """Points by what stands beside their value on an axis, or, `apart`, by the value itself."""
    beside: dict[str, set[tuple[str, ...]]] = {}
    for point in points:
        beside.setdefault(point[axis], set()).add(point[:axis] + point[axis + 1 :])
    classes: dict[Any, list[tuple[str, ...]]] = {}
    for point in points:
        place = point[axis] if apart else frozenset(beside[point[axis]])
        classes.setdefault(place, []).append(point)
    return list(classes.values())


def sweep_config(
    grid: Grid, words: Sequence[str], *, name: str, project: str, entity: str = ""
) -> dict[str, Any]:
    """One grid as a configuration for ``wandb sweep``.

    Parameters
    ----------
    grid : dict
        From `grids`.
    words : sequence of str
        What the command has beside the grid's keys, flags first.
    name, project, entity : str
        At W&B; without an entity, whoever is logged in.

    Returns
    -------
    dict
        To be written as YAML. An agent types ``pdml run`` with the words, the keys of one value, and one value for each
        of the other keys.
    """
    swept = {key: values for key, values in grid.items() if len(values) > 1}
    if not swept:  # W&B wants a parameter
        key = next(key for key in grid if _NAME.fullmatch(key))
        swept = {key: grid[key]}
    fixed = [f"{key}={values[0]}" for key, values in grid.items() if key not in swept]
    config: dict[str, Any] = {
        "name": name,
        "project": project,
        "program": "pdml",
        "method": "grid",
        "metric": {"name": "auc", "goal": "maximize"},
        "command": ["${env}", "${program}", "run", *words, *fixed, "${args_no_hyphens}"],
        "parameters": {key: {"values": [_plain(value) for value in values]} for key, values in swept.items()},
    }
    return config | ({"entity": entity} if entity else {})


def _plain(word: str) -> str | int | float:
    """A number where it comes back as the same word: W&B writes numbers in its own way."""
    for kind in (int, float):
        try:
            value = kind(word)
        except ValueError:
            continue
        # JSON knows no 1.0 beside 1, and no infinity
        if str(value) == word and (kind is int or (value % 1 and abs(value) < 1e15)):
            return value
    return word
