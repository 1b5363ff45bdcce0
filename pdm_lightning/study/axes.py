"""Expanding the axes of a sweep: the values that each takes, and a cell for every combination of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from pdm_lightning.study.assemble import Assembler, Compose
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.words import spelled

#: How results are shown and judged: no axis.
_SHOWN = ("report.", "card.")


@dataclass(frozen=True)
class Axis:
    """One override and the values that it takes; a plain override is an axis with one value."""

    key: str
    values: tuple[str, ...]  # whole overrides, as "defense=ce"
    group: bool

    @property
    def words(self) -> tuple[str, ...]:
        """The values alone, as ``ce``."""
        return tuple(value.partition("=")[2] for value in self.values)


def parse_axes(params: list[str], arguments: list[str], loader: Any) -> list[Axis]:
    """Axes of an experiment and of the command line; where both name one, the command line's counts."""
    parser = OverridesParser.create(config_loader=loader)
    given = parser.parse_overrides(params) + parser.parse_overrides(arguments)
    axes = []
    for key, override in {one.get_key_element().lstrip("+~"): one for one in given}.items():
        group = bool(loader.get_group_options(override.key_or_group))
        # glob(*) also finds the files that are only parts of options
        values = tuple(value for value in _values(override) if not (group and "=_" in value))
        axes.append(Axis(key, values, group))
    return axes


def _values(override: Override) -> tuple[str, ...]:
    if not override.is_sweep_override():
        return (spelled(str(override.input_line)),)
    if not override.is_discrete_sweep():
        raise ValueError(
            f"{override.input_line}: only lists, choice(), range() and glob() are swept; pdml tune takes intervals"
        )
    # Hydra writes a list's values as Python does, True
    return tuple(
        spelled(f"{override.get_key_element()}={value}") for value in override.sweep_string_iterator()
    )


def narrowed(
    more: Mapping[str, Any], arguments: list[str], loader: Any
) -> tuple[dict[str, str], list[str]] | None:
    """What a command line leaves of a further sweep of an experiment.

    Parameters
    ----------
    more : mapping of str to value
        Axes of the further sweep.
    arguments : list of str
        Overrides of the command line.

    Returns
    -------
    (dict, list of str) or None
        The axes with the values that the command line names, too, and its other overrides; None where an axis has no
        value left.
    """
    own = {
        axis.key: axis for axis in parse_axes([f"{key}={value}" for key, value in more.items()], [], loader)
    }
    typed = {axis.key: axis for axis in parse_axes([], arguments, loader)}
    left: dict[str, str] = {}
    for key in [key for key in own if key in typed and key.startswith(_SHOWN)]:
        del own[key]  # no axis of the part: the command line's word counts
    for key, axis in own.items():
        asked = set(typed[key].words) if key in typed else set(axis.words)
        kept = [word for word in axis.words if word in asked]
        if not kept:
            return None
        left[key] = ",".join(kept)
    others = [word for word in arguments if word.lstrip("+~").partition("=")[0] not in own]
    return left, others


def expand(params: list[str], arguments: list[str], compose: Compose, loader: Any) -> Iterator[Cell]:
    """Yield every cell of a sweep, in the order of the axes as written; cells share what they have in common.

    Parameters
    ----------
    params, arguments : list of str
        Overrides of the experiment file and of the command line.
    compose : callable
        Composes a configuration from a list of overrides.
    loader : hydra.core.config_loader.ConfigLoader
        Knows which keys are groups.
    """
    axes = parse_axes(params, arguments, loader)
    values = [axis.values for axis in axes]
    assembler = Assembler(values, [axis.key if axis.group else "" for axis in axes], compose, loader)
    for combination in itertools.product(*values):
        yield Cell(assembler.config(combination), combination)
