"""What a search for hyper-parameters hands to its report: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Number:
    """What a trial came to: mean and deviation over its seeds, n images behind each."""

    mean: float
    sd: float | None = None
    n: int = 0
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One row.

    Attributes
    ----------
    number : int
    params : dict of str to str
        Value of each parameter, as it is typed.
    state, reason : str
        ``complete``, or why there is no value.
    values : dict of str to Number
        By metric.
    seconds : float
    built : int
        Artifacts that were made for it: 0 where the store had all, or a training was ended.
    repeats : int or None
        An earlier trial of the same point.
    trainings : tuple of str
        Keys of its models.
    command : str
        Runs the study with these values.
    """

    number: int
    params: dict[str, str]
    state: str = "complete"
    reason: str = ""
    values: dict[str, Number] = field(default_factory=dict)
    seconds: float = 0.0
    built: int = 0
    repeats: int | None = None
    trainings: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Searched:
    """One parameter: its key, what it may be (as typed), the values of a list, and whether its scale is logarithmic."""

    key: str
    text: str
    values: tuple[str, ...] = ()
    log: bool = False


@dataclass
class TuneResult:
    """Everything that the report of a search shows.

    Attributes
    ----------
    name, title, description, command, version : str
    objective, direction : str
        The metric, and ``maximize`` or ``minimize``.
    metrics : tuple of str
        All that was measured, the objective first.
    space : list of Searched
    trials : list of Trial
        By number.
    importances : dict of str to float
        Shares of the objective's variance by parameter; empty where unknown.
    notes : list of str
    settings : dict of str to str
    study : dict
        What the answer depends on, in plain values, for the JSON file.
    """

    name: str
    title: str
    objective: str
    direction: str
    metrics: tuple[str, ...]
    space: list[Searched]
    trials: list[Trial]
    description: str = ""
    importances: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    study: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    version: str = ""

    @property
    def ranked(self) -> list[Trial]:
        """Complete trials, the best first; of equals the earlier one."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        sign = -1 if self.direction == "maximize" else 1
        return sorted(complete, key=lambda trial: (sign * trial.values[self.objective].mean, trial.number))

    @property
    def failed(self) -> list[Trial]:
        """Trials that ended as nobody expects."""
        return [trial for trial in self.trials if trial.state == "failed"]

    @property
    def best(self) -> Trial | None:
        """The best trial, if there is one."""
        return next(iter(self.ranked), None)
