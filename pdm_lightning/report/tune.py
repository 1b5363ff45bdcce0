"""The report of a search for hyper-parameters: its trials as tables, figures, CSV and JSON, and a page."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdm_lightning.report import formats
from pdm_lightning.report.page import render_page
from pdm_lightning.report.render_text import latex, markdown
from pdm_lightning.report.results import Failure, Figure, StudyResult
from pdm_lightning.report.tables import PLUS_MINUS, Cell, Column, Table, TableRow
from pdm_lightning.report.write import remove_stale, write_atomically

#: Parameters that one figure of slices shows, the most important first.
MOST_SLICES = 12


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
        Artifacts that were made for it: 0 where the store had all.
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
    def best(self) -> Trial | None:
        """The best trial, if there is one."""
        return next(iter(self.ranked), None)


def write_tune_report(folder: Path, result: TuneResult) -> Path:
    """Write ``index.html``, ``tune.csv``, ``tune.json``, ``tables/`` and ``figures/`` into `folder`.

    Returns
    -------
    Path
        The page, ``folder/index.html``.
    """
    from pdm_lightning.report.figures import figure_files  # matplotlib writes its caches when it is imported

    tables, figures = tune_tables(result), tune_figures(result)
    files = {"tune.csv": tune_csv(result).encode(), "tune.json": tune_json(result).encode()}
    for table in tables:
        files[f"tables/{table.name}.md"] = markdown(table).encode()
        files[f"tables/{table.name}.tex"] = latex(table).encode()
    for figure in figures:
        files |= {f"figures/{name}": content for name, content in figure_files(figure).items()}
    head = _head(result, figures)
    files["index.html"] = render_page(head, tables, facts=_facts(result), numbers="tune.csv").encode()
    for name, content in files.items():
        write_atomically(folder / name, content)
    remove_stale(folder, set(files))
    return folder / "index.html"


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
        notes.append(f"{repeated} trials repeat an earlier point: their results came from the store.")
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
    cells += [Cell(trial.params[searched.key], sort=_float(trial.params[searched.key])) for searched in result.space]
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
    label, values = formats.metric_label(result.objective), [t.values[result.objective].mean for t in complete]
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
    order = sorted(result.space, key=lambda searched: -result.importances.get(searched.key, 0.0))[:MOST_SLICES]
    slices = [_slice(searched, complete, values, label) for searched in order]
    caption = f"{label} of every complete trial over each parameter, the most important first; the others vary, too."
    return [history, Figure("slices", "curves", "Slices", caption, slices)]


def _slice(searched: Searched, trials: Sequence[Trial], values: Sequence[float], label: str) -> dict[str, Any]:
    typed = [trial.params[searched.key] for trial in trials]
    panel: dict[str, Any] = {"title": searched.key, "x_label": searched.key, "y_label": label}
    if searched.values:
        panel["x_names"] = list(searched.values)
        x = [float(searched.values.index(value)) for value in typed]
    else:
        panel["x_log"] = searched.log
        x = [float(value) for value in typed]
    return panel | {"series": [{"label": "trial", "x": x, "y": list(values), "points": True}]}


def tune_csv(result: TuneResult) -> str:
    """One line a trial, by number; every digit of every value, and those of its single trainings."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = [searched.key for searched in result.space]
    measured = [f"{metric}{part}" for metric in result.metrics for part in ("", "_sd", "_n", "_seeds")]
    writer.writerow(
        ["trial", "state", *keys, *measured, "seconds", "built", "repeats", "trainings", "reason", "command"]
    )
    for trial in result.trials:
        numbers: list[Any] = []
        for metric in result.metrics:
            n = trial.values.get(metric)
            numbers += ["", "", "", ""] if n is None else [n.mean, _blank(n.sd), n.n, " ".join(map(repr, n.seeds))]
        facts = [f"{trial.seconds:.3f}", trial.built, _blank(trial.repeats), " ".join(trial.trainings)]
        writer.writerow(
            [trial.number, trial.state, *(trial.params[key] for key in keys), *numbers, *facts, trial.reason, trial.command]
        )
    return out.getvalue()


def tune_json(result: TuneResult) -> str:
    """The search, its trials and its best one, for programs."""
    best = result.best
    content = {
        "name": result.name,
        "objective": result.objective,
        "direction": result.direction,
        "images": "validation",
        "space": {searched.key: searched.text for searched in result.space},
        "study": result.study,
        "best": None if best is None else _plain(best),
        "importances": result.importances,
        "trials": [_plain(trial) for trial in result.trials],
        "command": result.command,
        "version": result.version,
    }
    return json.dumps(content, indent=1) + "\n"


def _plain(trial: Trial) -> dict[str, Any]:
    values = {metric: vars(number) | {"seeds": list(number.seeds)} for metric, number in trial.values.items()}
    return vars(trial) | {"values": values, "trainings": list(trial.trainings)}


def _head(result: TuneResult, figures: list[Figure]) -> StudyResult:
    failed = [trial for trial in result.trials if trial.state == "failed"]
    return StudyResult(
        name=result.name,
        title=result.title,
        description=result.description,
        figures=figures,
        tables=[],
        notes=result.notes,
        failures=[Failure(f"trial {trial.number}", trial.reason) for trial in failed],
        settings=result.settings,
        command=result.command,
        version=result.version,
    )


def _facts(result: TuneResult) -> list[tuple[str, str, bool]]:
    counts: dict[str, int] = {}
    for trial in result.trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    facts = [(str(len(result.space)), "parameter" if len(result.space) == 1 else "parameters", False)]
    return facts + [(str(number), state, state == "failed") for state, number in counts.items()]


def _float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _blank(value: Any) -> Any:
    return "" if value is None else value
