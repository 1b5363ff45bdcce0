"""Writes the report of a search for hyper-parameters: tables, figures, CSV, JSON and a page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from pdm_lightning.report.page import render_page
from pdm_lightning.report.render_text import latex, markdown
from pdm_lightning.report.results import Failure, Figure, StudyResult
from pdm_lightning.report.tune_result import Number, Searched, Trial, TuneResult
from pdm_lightning.report.tune_tables import tune_figures, tune_tables
from pdm_lightning.report.write import remove_stale, write_atomically

__all__ = ["Number", "Searched", "Trial", "TuneResult", "tune_tables", "write_tune_report"]


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
            numbers += (
                ["", "", "", ""] if n is None else [n.mean, _blank(n.sd), n.n, " ".join(map(repr, n.seeds))]
            )
        facts = [f"{trial.seconds:.3f}", trial.built, _blank(trial.repeats), " ".join(trial.trainings)]
        writer.writerow(
            [
                trial.number,
                trial.state,
                *(trial.params[key] for key in keys),
                *numbers,
                *facts,
                trial.reason,
                trial.command,
            ]
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
    return StudyResult(
        name=result.name,
        title=result.title,
        description=result.description,
        figures=figures,
        tables=[],
        notes=result.notes,
        failures=[Failure(f"trial {trial.number}", trial.reason) for trial in result.failed],
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


def _blank(value: Any) -> Any:
    return "" if value is None else value
