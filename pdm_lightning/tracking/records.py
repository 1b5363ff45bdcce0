"""What is tracked of a study, in plain values: this knows neither a logger nor the store."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

#: The most images of a grid, and points of a t-SNE plot, that anybody gets.
MOST_IMAGES, MOST_POINTS = 16, 1000


class Measured(NamedTuple):
    """A number of ``results.csv`` with its interval; what is not known is None."""

    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Example:
    """One attacked image beside its original.

    Attributes
    ----------
    index : int
        Its number in the test set.
    original, adversarial : (H, W, C) uint8 array
        C is 1 or 3.
    label, predicted : str
        The class before the attack, which the model got right, and the one after it.
    clean_score, score : float
        The detector's, of the original and of the attacked image; higher is more adversarial.
    l2, linf : float
        How far apart the two are, in units of a pixel's range.
    flagged : dict of str to bool
        By false-positive rate: whether the attacked image is above the frozen threshold.
    """

    index: int
    original: np.ndarray
    adversarial: np.ndarray
    label: str
    predicted: str
    clean_score: float
    score: float
    l2: float
    linf: float
    flagged: Mapping[str, bool] = field(default_factory=dict)

    def pair(self, gap: int = 1) -> np.ndarray:
        """Original and attacked image side by side, small ones enlarged: (H', W', 3) uint8."""
        height = len(self.original)
        white = np.full((height, gap, self.original.shape[2]), 255, np.uint8)
        both = np.concatenate([self.original, white, self.adversarial], axis=1)
        scale = max(1, math.ceil(64 / height))
        both = both.repeat(scale, axis=0).repeat(scale, axis=1)
        return np.broadcast_to(both, (*both.shape[:2], 3)) if both.shape[2] == 1 else both

    @property
    def caption(self) -> str:
        """``3 -> 8, score 1.2 -> 7.5``: classes and scores before and after, and where the alarm goes off."""
        flags = [f"flagged at {fpr}" for fpr, flag in self.flagged.items() if flag]
        change = f"{self.label} -> {self.predicted}, score {self.clean_score:.4g} -> {self.score:.4g}"
        return ", ".join([change, *flags])


class Table(NamedTuple):
    """Columns by name, and rows of plain values."""

    columns: list[str]
    rows: list[list[Any]]


class Curve(NamedTuple):
    """A curve by points; a ROC curve's x is the false-positive rate and its y the true-positive rate."""

    label: str
    x: list[float]
    y: list[float]


class Upload(NamedTuple):
    """Files of the store that are kept as one artifact.

    Attributes
    ----------
    name : str
        ``model-<key>``, ``adversarial-<key>``.
    kind : {"models", "adversarial"}
        As ``logger.upload`` names it.
    files : tuple of Path
    digest : str
        Of their content.
    facts : mapping
        What to say of it beside its files.
    """

    name: str
    kind: str
    files: tuple[Path, ...]
    digest: str
    facts: Mapping[str, Any]


@dataclass
class Content:
    """Everything one run holds beside its configuration.

    Attributes
    ----------
    history : list of dict
        Rows of a training's log, each with its ``step``.
    roc : list of Curve
    examples : list of Example
    tables : dict of str to Table
    pictures : dict of str to callable
        Each draws an (H, W, 3) uint8 array when it is called.
    uploads : list of Upload
    """

    history: list[dict[str, float]] = field(default_factory=list)
    roc: list[Curve] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)
    pictures: dict[str, Callable[[], np.ndarray]] = field(default_factory=dict)
    uploads: list[Upload] = field(default_factory=list)


@dataclass(frozen=True)
class Record:
    """One run: what tells it from others at once, and how to get the rest.

    Attributes
    ----------
    key : str
        The run's id: the key of the artifact that it is about.
    job : {"train", "cell", "worst_case"}
    title : str
        Shown as the run's name.
    axes : dict
        Name of the chosen option by group, and the seed.
    settings : dict
        The resolved configuration behind them.
    metrics : dict of str to Measured
        By name, as in ``results.csv``.
    digest : str
        Of everything that it is made of: with another one the run is tracked again.
    load : callable
        Returns the `Content`; called only where it is needed.
    error : str
        Why there are no results; the run is marked as failed.
    """

    key: str
    job: str
    title: str
    axes: Mapping[str, Any]
    settings: Mapping[str, Any]
    metrics: Mapping[str, Measured]
    digest: str
    load: Callable[[], Content] = Content
    error: str = ""


def numbers(metrics: Mapping[str, Measured]) -> dict[str, float]:
    """All numbers of metrics by one name each: ``auc``, ``auc_ci_low``, ``auc_ci_high``, ``auc_n``."""
    flat: dict[str, float] = {}
    for name, measured in metrics.items():
        parts = zip(("", "_ci_low", "_ci_high", "_n"), measured, strict=True)
        flat |= {f"{name}{part}": value for part, value in parts if value is not None}
    return flat


def example_table(examples: list[Example], picture: Callable[[np.ndarray], Any] | None = None) -> Table:
    """One row an example; the images, made by `picture`, only where that is given."""
    rates = list(examples[0].flagged) if examples else []
    columns = ["index", "label", "predicted", "clean_score", "score", "l2", "linf"]
    rows = [
        [e.index, e.label, e.predicted, e.clean_score, e.score, e.l2, e.linf, *e.flagged.values()]
        for e in examples
    ]
    columns += [f"flagged@{rate}" for rate in rates]
    if picture is None:
        return Table(columns, rows)
    pictures = [[picture(e.original), picture(e.adversarial)] for e in examples]
    return Table(
        ["original", "adversarial", *columns], [two + row for two, row in zip(pictures, rows, strict=True)]
    )
