"""Search spaces in Hydra's own sweep grammar: ``interval(...)``, ``range(...)``, ``choice(...)``, ``tag(log, ...)``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
    Transformer,
)

from pdm_lightning.study.words import options, parse

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: What may be searched; all else says what is measured, on what, or where it is written.
SEARCHABLE = ("model", "defense", "detector", "optimizer", "budget.train", "data.augment", "data.pairs")
DIGITS = 4
"""Significant digits of a number that is drawn from an interval, so that a command is short enough to be typed."""
_MOST = 10_000  # values of a range


@dataclass(frozen=True)
class Parameter:
    """One override and what it may be.

    Attributes
    ----------
    key : str
        As typed: ``defense.term.rvl.weight``, ``defense``, ``+optimizer.momentum``.
    text : str
        What it may be, as typed: ``tag(log, interval(0.01, 1))``.
    values : tuple of str
        The values of a list or range, as they are typed; empty for an interval.
    ordered : bool
        Whether they are in order (a range), or names that have none.
    low, high : float
        Ends of an interval, both in it.
    whole, log : bool
        Whether its numbers are whole, and drawn on a logarithmic scale.
    """

    key: str
    text: str
    values: tuple[str, ...] = ()
    ordered: bool = False
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    @property
    def place(self) -> str:
        """Where the override's value stands in the configuration."""
        return place(self.key)

    def distribution(self) -> BaseDistribution:
        """What Optuna draws: a name, a position in a range, or a number."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.values:
            positions = IntDistribution(0, len(self.values) - 1)
            return positions if self.ordered else CategoricalDistribution(self.values)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def shown(self, drawn: Any) -> str:
        """What was drawn, as it is typed: numbers of an interval with `DIGITS` digits."""
        if self.values:
            return self.values[drawn] if self.ordered else str(drawn)
        if self.whole:
            return str(int(drawn))
        return repr(min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high))

    def ends(self) -> tuple[str, ...]:
        """Values that are checked before anything is computed: all of a list, both ends and the middle of others."""
        if self.values:
            few = (self.values[0], self.values[len(self.values) // 2], self.values[-1])
            return tuple(dict.fromkeys(few if self.ordered else self.values))
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return tuple(dict.fromkeys(self.shown(value) for value in (self.low, middle, self.high)))


def place(key: str) -> str:
    """Where an override's value stands: ``detector.attack`` of ``+attack@detector.attack``."""
    bare = key.lstrip("+~")
    return bare.partition("@")[2] or bare


def split(words: Sequence[str], loader: ConfigLoader) -> tuple[list[str], list[Parameter]]:
    """Tell the overrides that have one value from those that are searched.

    Parameters
    ----------
    words : sequence of str
        Overrides; of two of one key the later one counts.

    Returns
    -------
    fixed : list of str
    space : list of Parameter

    Raises
    ------
    ValueError
        For what cannot be searched.
    """
    last: dict[str, tuple[str, Override]] = {}
    for word in words:
        override = parse(word, loader)
        last[place(override.get_key_element())] = (word, override)
    fixed = [word for word, override in last.values() if not override.is_sweep_override()]
    searched = [override for _, override in last.values() if override.is_sweep_override()]
    return fixed, [_parameter(override, loader) for override in searched]


def joined(
    params: Mapping[str, Any], words: Sequence[str], loader: ConfigLoader
) -> tuple[list[str], list[Parameter]]:
    """The same, with the axes of an experiment: where the command line names one, its word counts.

    Parameters
    ----------
    params : mapping of str to value
        ``hydra.sweeper.params`` of the experiment.
    words : sequence of str
        Of the command line.
    """
    fixed, space = split(words, loader)
    typed = {place(parse(word, loader).get_key_element()) for word in words}
    own = [f"{key}={value}" for key, value in params.items() if place(str(key)) not in typed]
    more, others = split(own, loader)
    return [*more, *fixed], [*others, *space]


def size(space: Sequence[Parameter]) -> int | None:
    """Number of points of a space; None where it holds an interval."""
    return None if not all(p.values for p in space) else math.prod(len(p.values) for p in space)


def corners(space: Sequence[Parameter]) -> list[dict[str, str]]:
    """Points that stand for the space: each option of a group, and each end of the others, at least once."""
    lists = [parameter.ends() for parameter in space]
    return [
        {p.key: values[min(row, len(values) - 1)] for p, values in zip(space, lists, strict=True)}
        for row in range(max(map(len, lists), default=0))
    ]


def _parameter(override: Override, loader: ConfigLoader) -> Parameter:
    key, line = override.get_key_element(), str(override.input_line)
    if not any(place(key) == name or place(key).startswith(f"{name}.") for name in SEARCHABLE):
        hint = "tune.seeds=3 averages over seeds" if key == "seed" else f"give {key} one value"
        raise ValueError(f"{line}: what can be searched is {', '.join(SEARCHABLE)}: {hint}")
    value, text = override.value(), override.get_value_string().strip()
    tags = set(getattr(value, "tags", ()))
    if tags - {"log"} or (tags and not isinstance(value, IntervalSweep)):
        raise ValueError(
            f"{line}: the one tag is log, and goes with an interval: tag(log, interval(0.01, 1))"
        )
    if isinstance(value, IntervalSweep):
        return _interval(override, value, key, text, loader)
    values = _values(override, value, loader)
    if len(set(values)) < len(values):
        raise ValueError(f"{line}: a value stands there twice: leave one out")
    return Parameter(key, text, values, ordered=isinstance(value, RangeSweep))


def _interval(
    override: Override, value: IntervalSweep, key: str, text: str, loader: ConfigLoader
) -> Parameter:
    line = str(override.input_line)
    known = options(loader, override.key_or_group)
    if known:
        raise ValueError(f"{line}: {key} has options and no numbers: {key}=choice({','.join(known[:3])})")
    low, high = value.start, value.end
    assert low is not None and high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{line}: the first end has to lie below the second: interval(0.01, 1)")
    log = "log" in value.tags
    if log and low <= 0:
        raise ValueError(f"{line}: a logarithmic scale begins above 0: tag(log, interval(0.01, {high:g}))")
    return Parameter(key, text, low=low, high=high, whole=isinstance(low, int), log=log)


def _values(override: Override, value: Any, loader: ConfigLoader) -> tuple[str, ...]:
    """The values of a list in the order in which it is written, those of a range ascending."""
    line = str(override.input_line)
    if isinstance(value, RangeSweep):
        try:
            numbers: list[Any] = list(itertools.islice(iter(value.range()), _MOST + 1))
        except Exception as error:
            raise ValueError(f"{line}: {error}") from error
        if not 0 < len(numbers) <= _MOST:
            raise ValueError(
                f"{line}: a range holds from 1 to {_MOST:,} values; interval(...) takes any number"
            )
        # 0.3, where steps of 0.1 add up to 0.30000000000000004
        rounded = (float(f"{n:.12g}") if isinstance(n, float) else n for n in numbers)
        return tuple(str(number) for number in sorted(rounded))
    listed: list[Any] = []
    if isinstance(value, Glob):
        listed = sorted(value.filter(options(loader, override.key_or_group)))
    elif isinstance(value, ChoiceSweep):
        listed = value.list
    if not listed or any(isinstance(item, Sweep) for item in listed):
        raise ValueError(
            f"{line}: a list of values needed, as choice(0.1,0.3), or one interval(...) or range(...)"
        )
    return tuple(Transformer.str(item) for item in listed)
