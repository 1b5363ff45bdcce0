"""The tables and figures of a search for hyper-parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pdm_lightning.report import formats
from pdm_lightning.report.results import Figure
from pdm_lightning.report.tables import PLUS_MINUS, Cell, Column, Table, TableRow
from pdm_lightning.report.tune_result import Searched, Trial, TuneResult

#: Parameters that one figure of slices shows, the most important first.
MOST_SLICES = 12


def tune_tables(result: TuneResult, most: int | None = None) -> list[Table]:
    """The trials, best first, and the search space.

    Parameters
    ----------
    most : int, optional
        Trials to show at most.
    """
    return [_trials(result, most), _space(result)]


def _trials(result: TuneResult, most: int | None) -> Table:
    ranked = result.ranked
    rest = [trial for trial in result.trials if trial.state != "complete"]
    shown = [*ranked, *rest][:most]
    columns = [Column(formats.metric_label(metric), "On validation images") for metric in result.metrics]
    columns += [Column(searched.key, "Parameters") for searched in result.space]
    columns += [Column("Time"), Column("State")]
    repeated = sum(trial.repeats is not None for trial in result.trials)
    notes = [f"Trial {t.number} {t.state}: {t.reason}" for t in shown if t.reason]
    if repeated:
        verb, whose = ("trial repeats", "its") if repeated == 1 else ("trials repeat", "their")
        notes.append(f"{repeated} {verb} an earlier point: {whose} results came from the store.")
    if len(shown) < len(result.trials):
        notes.append(f"{len(shown)} of {len(result.trials)} trials: all are in tune.csv.")
    return Table(
        name="trials",
        kind="trials",
        title="Trials",
        caption=_caption(result),
        row_header="Trial",
        columns=columns,
        rows=[TableRow(str(trial.number), _cells(result, trial)) for trial in shown],
        footnotes=notes,
    )


def _caption(result: TuneResult) -> str:
    wanted = "highest" if result.direction == "maximize" else "lowest"
    label = formats.metric_label(result.objective)
    several = any(n.sd is not None for trial in result.trials for n in trial.values.values())
    spread = f" Mean {PLUS_MINUS} standard deviation over the trainings of a trial." if several else ""
    return (
        f"Best first, by the {wanted} {label} (tune.objective={result.objective}). Every number is of validation "
        f"images; no test image was looked at.{spread}"
    )


def _cells(result: TuneResult, trial: Trial) -> list[Cell]:
    cells = []
    for metric in result.metrics:
        number = trial.values.get(metric)
        if number is None:
            cells.append(Cell("n/a", status="n/a"))
            continue
        spread = "" if number.sd is None else f"{PLUS_MINUS} {formats.metric_deviation(metric, number.sd)}"
        value = formats.metric_value(metric, number.mean)
        cells.append(Cell(value, interval=spread, n=formats.count(number.n), sort=number.mean))
    cells += [
        Cell(trial.params[searched.key], sort=_float(trial.params[searched.key])) for searched in result.space
    ]
    state = trial.state if trial.repeats is None else f"{trial.state}, as {trial.repeats}"
    return [*cells, Cell(formats.seconds(trial.seconds), sort=trial.seconds), Cell(state)]


def _space(result: TuneResult) -> Table:
    best, rows = result.best, []
    for searched in result.space:
        share = result.importances.get(searched.key)
        cells = [
            Cell(searched.text),
            Cell(best.params[searched.key] if best else "", sort=None),
            Cell(f"{share:.2f}" if share is not None else "n/a", status="ok" if share is not None else "n/a"),
        ]
        rows.append(TableRow(searched.key, cells))
    complete = len(result.ranked)
    return Table(
        name="space",
        kind="space",
        title="Search space",
        caption="Importance: share of the objective's variance that a parameter explains by itself (fANOVA over "
        f"{complete} complete trials; a rough guide below some dozens).",
        row_header="Parameter",
        columns=[Column("Searched"), Column("Best"), Column("Importance")],
        rows=rows,
    )


def tune_figures(result: TuneResult) -> list[Figure]:
    """The history of the objective, and the objective over each parameter."""
    complete = [trial for trial in result.trials if trial.state == "complete"]
    if not complete:
        return []
    label, values = (
        formats.metric_label(result.objective),
        [t.values[result.objective].mean for t in complete],
    )
    better = max if result.direction == "maximize" else min
    so_far = [better(values[: k + 1]) for k in range(len(values))]
    numbers = [trial.number for trial in complete]
    panel = {
        "title": "",
        "x_label": "trial",
        "y_label": label,
        "series": [
            {"label": "best so far", "x": numbers, "y": so_far},
            {"label": "trial", "x": numbers, "y": values, "points": True},
        ],
    }
    history = Figure(
        "history", "curves", "History", f"{label} of validation images, trial by trial.", [panel]
    )
    order = sorted(result.space, key=lambda searched: -result.importances.get(searched.key, 0.0))[
        :MOST_SLICES
    ]
    slices = [_slice(searched, complete, values, label) for searched in order]
    caption = f"{label} of every complete trial over each parameter, the most important first; the others vary, too."
    return [history, Figure("slices", "curves", "Slices", caption, slices)]


def _slice(
    searched: Searched, trials: Sequence[Trial], values: Sequence[float], label: str
) -> dict[str, Any]:
    typed = [trial.params[searched.key] for trial in trials]
    panel: dict[str, Any] = {"title": searched.key, "y_label": label}
    if searched.values:
        panel["x_names"] = list(searched.values)
        x = [float(searched.values.index(value)) for value in typed]
    else:
        panel["x_log"] = searched.log
        x = [float(value) for value in typed]
    return panel | {"series": [{"label": "trial", "x": x, "y": list(values), "points": True}]}


def _float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
