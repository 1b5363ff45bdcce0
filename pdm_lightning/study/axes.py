"""Expanding the axes of a sweep, with each option of a group composed once and not once a cell.

Composing ten groups takes Hydra about 0.2 s, so two thousand cells would take minutes. A cell of a sweep differs from
another one only in the nodes of the groups that are swept, so each option is composed once and the cells are put
together from these nodes. An option that reaches beyond its own node (a budget that also chooses the optimizer) is
noticed by comparing configurations, and composed with every combination of the others of its kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from pdm_lightning.study.cell import Cell, resolve

Compose = Callable[[list[str]], DictConfig]


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
        return (str(override.input_line),)
    if not override.is_discrete_sweep():
        raise ValueError(
            f"{override.input_line}: only lists, choice(), range() and glob() are swept; pdml tune takes intervals"
        )
    return tuple(f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator())


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
    for key, axis in own.items():
        asked = set(typed[key].words) if key in typed else set(axis.words)
        kept = [word for word in axis.words if word in asked]
        if not kept:
            return None
        left[key] = ",".join(kept)
    others = [word for word in arguments if word.lstrip("+~").partition("=")[0] not in own]
    return left, others


def expand(params: list[str], arguments: list[str], compose: Compose, loader: Any) -> Iterator[Cell]:
    """Yield every cell of a sweep, in the order of the axes as written.

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
    composed = _Composer(axes, compose)
    for combination in itertools.product(*(axis.values for axis in axes)):
        yield resolve(composed.cell(combination), combination)


class _Composer:
    """Puts cells together from nodes that were composed once."""

    def __init__(self, axes: list[Axis], compose: Compose) -> None:
        self.axes, self.compose = axes, compose
        self.base: dict[tuple[str, ...], DictConfig] = {}
        self.first = tuple(axis.values[0] for axis in axes)
        self.swept = [i for i, axis in enumerate(axes) if axis.group and len(axis.values) > 1]
        self.far = [i for i in self.swept if self._reaches_far(i)]
        self.near = [i for i in self.swept if i not in self.far]
        self.plain = [i for i, axis in enumerate(axes) if not axis.group and len(axis.values) > 1]

    def _composed(self, combination: tuple[str, ...]) -> DictConfig:
        if combination not in self.base:
            config = self.compose(list(combination))
            self.base[combination] = OmegaConf.masked_copy(
                config, [str(key) for key in config if key != "hydra"]
            )
        return self.base[combination]

    def _reaches_far(self, i: int) -> bool:
        def elsewhere(combination: tuple[str, ...]) -> dict[Any, Any]:
            plain = OmegaConf.to_container(self._composed(combination), resolve=False)
            assert isinstance(plain, dict)
            return {key: value for key, value in plain.items() if key != self.axes[i].key}

        reference = elsewhere(self.first)
        return any(elsewhere(_with(self.first, {i: value})) != reference for value in self.axes[i].values[1:])

    def cell(self, combination: tuple[str, ...]) -> DictConfig:
        """Composed, unresolved configuration of one combination of values."""
        far = {i: combination[i] for i in self.far}
        start = _with(self.first, far)
        config = self._composed(start).copy()
        OmegaConf.set_struct(config, False)
        for i in self.near:
            node = self.axes[i].key
            config[node] = self._composed(_with(start, {i: combination[i]}))[node]
        for i in self.plain:
            self._update(config, combination[i])
        return config

    @staticmethod
    def _update(config: DictConfig, override: str) -> None:
        parsed = OverridesParser.create().parse_override(override)
        OmegaConf.update(config, parsed.key_or_group, parsed.value(), force_add=True)


def _with(combination: tuple[str, ...], changes: dict[int, str]) -> tuple[str, ...]:
    return tuple(changes.get(i, value) for i, value in enumerate(combination))
