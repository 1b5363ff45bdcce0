"""One measured value with everything that names it, and the CSV form of many."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

#: Every status a row may have. ``ok``: a value. ``n/a``: too few examples to say. ``failed``: the cell
#: raised. ``missing``: not computed. ``refused``: the threat model withholds what the attack needs.
STATUSES = ("ok", "n/a", "failed", "missing", "refused")


@dataclass
class Row:
    """One measured value of one cell of a study.

    Attributes
    ----------
    data, model, defense, budget, threat, attack, detector : str
        The configuration's names. ``attack="none"`` marks what is measured on clean images.
    seed : int
        Seed of the training and of the crafting.
    bandwidth : str or float
        The detector's bandwidth rule (``validation``, ``loo``, ``nn_median``) or a number, where it is
        scaled followed by the factor (``validation x0.5``); empty where no detector takes part.
    metric : str
        For example ``accuracy``, ``auc``, ``success_rate``, or ``joint_success@0.05`` for what has a threshold
        at a false-positive rate. Rates are in [0, 1].
    value, ci_low, ci_high : float or None
        The value and its 95 % interval.
    n : int or None
        Examples the value rests on (pairs for ``auc``).
    n_attacked : int or None
        Examples that were attacked.
    status : str
        One of :data:`STATUSES`.
    artifact : str
        Key of the artifact the value comes from.
    note : str
        ``capped: ...`` and ``collapsed`` become footnotes; anything else is only in the CSV.

    Raises
    ------
    ValueError
        If ``status`` is unknown, or is ``ok`` without a value.
    """

    data: str = ""
    model: str = ""
    defense: str = ""
    seed: int = 0
    budget: str = ""
    threat: str = ""
    attack: str = "none"
    detector: str = ""
    bandwidth: str | float = ""
    metric: str = ""
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None
    n_attacked: int | None = None
    status: str = "ok"
    artifact: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is unknown: use one of {', '.join(STATUSES)}")
        if self.status == "ok" and self.value is None:
            raise ValueError(
                f"a row of metric {self.metric!r} is 'ok' but has no value: give one, or another status"
            )


def cell_of(row: Row) -> tuple[str, ...]:
    """The cell that a row belongs to, by its names; a model's own rows belong to the model."""
    model = (row.data, row.model, row.defense, row.budget, str(row.seed))
    return model if row.attack == "none" else (*model, row.threat, row.attack, row.detector)


#: Columns of ``results.csv``, in order.
COLUMNS = tuple(f.name for f in fields(Row))
_INTEGERS = frozenset({"seed", "n", "n_attacked"})
_FLOATS = frozenset({"value", "ci_low", "ci_high"})


def row_of(common: dict[str, Any], metric: str, measured: Mapping[str, Any]) -> Row:
    """The row of a value as artifacts have it: ``value``, ``low``, ``high``, ``n``; n/a where there is no number.

    Parameters
    ----------
    common : dict
        What names the row.
    """
    value = measured.get("value")
    known = value is not None and math.isfinite(value)
    return Row(
        **common,
        metric=metric,
        value=value if known else None,
        ci_low=measured.get("low") if known else None,
        ci_high=measured.get("high") if known else None,
        n=measured.get("n"),
        status="ok" if known else "n/a",
    )


def rows_to_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV text with a header; None is an empty field, floats keep every digit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = (getattr(row, column) for column in COLUMNS)
        writer.writerow(["" if value is None else _text(value) for value in values])
    return out.getvalue()


def read_csv(path: Path) -> list[Row]:
    """Read back what :func:`rows_to_csv` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If its columns are not :data:`COLUMNS`, or a line of it is no row; the message names the line.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path} has other columns than a results.csv: expected {', '.join(COLUMNS)}")
        rows = []
        try:
            for line in reader:
                if None in line or None in line.values():
                    raise ValueError(f"it has not {len(COLUMNS)} fields")
                rows.append(Row(**{column: _parse(column, text) for column, text in line.items()}))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
        return rows


def _text(value: object) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)


def _parse(column: str, text: str) -> Any:
    if column in _INTEGERS:
        return int(text) if text else None
    if column in _FLOATS:
        return float(text) if text else None
    if column == "bandwidth":
        try:
            return float(text)
        except ValueError:
            return text
    return text
