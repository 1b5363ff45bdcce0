"""``pdml tune``: hyper-parameters by Optuna's ask and tell, on validation images alone, over the study's own store."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pdm_lightning import __version__
from pdm_lightning.report import formats
from pdm_lightning.report.terminal import print_table
from pdm_lightning.report.tune import TuneResult, tune_tables, write_tune_report
from pdm_lightning.spoken import quiet
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study import tune_question
from pdm_lightning.study.ask import ask
from pdm_lightning.study.tune_history import Trials
from pdm_lightning.study.tune_question import Question
from pdm_lightning.study.tune_report import again, collect
from pdm_lightning.study.tune_trial import MEASURED, Evaluation, check, evaluate
from pdm_lightning.study.words import config_loader, split_words

POLL = 1.0
"""Seconds between two looks at trials that other processes work on."""
SHOWN = 10
"""Trials that are printed; the report has all."""


def tune(words: list[str]) -> int:
    """Carry out ``pdml tune``.

    Parameters
    ----------
    words : list of str
        Overrides, some of them with an interval, a range or a list, and Hydra's flags.

    Returns
    -------
    int
        Exit status: 1 where no trial has a value, or one failed in a way that nobody expects.

    Raises
    ------
    ValueError
        Names the word that cannot be met, and what to type instead.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    flags, overrides = split_words(words)
    loader = config_loader(flags.config_dir)
    if flags.hydra_help or flags.cfg or flags.info:
        fixed = tune_question.fixed_words(overrides, loader)
        ask("tune", [word for word in words if word not in overrides or word in fixed])
        return 0
    question = tune_question.read(overrides, loader)
    output, name = Path(question.config["paths"]["output"]), str(question.config["name"])
    store = Store(output / "store", on_stale=question.config["store"]["on_stale"])
    context = Context(store)
    check(question, context)
    trials = Trials(output / "tune" / name, question)
    with quiet("pdm_lightning.store"):  # what is stale is counted in the report
        run(question, trials, context)
        result = collect(question, trials, shlex.join(["pdml", "tune", *words]), __version__)
    return _report(result, trials.folder)


def run(question: Question, trials: Trials, context: Context) -> None:
    """Work on trials until there are as many as were asked for and all are told of, or the time is over."""
    limit, started, waits = question.settings.timeout, time.monotonic(), False
    while limit is None or time.monotonic() - started < limit:
        with trials.claim() as trial:
            if trial is not None:
                chosen = trials.chosen(trial)
                evaluation = evaluate(question, chosen, context, lambda rows, t=trial: trials.watch(t, rows))  # type: ignore[misc]
                trials.tell(trial, evaluation)
                _say(_line(question, trials, trial.number, evaluation))
                continue
        others = [frozen.number for frozen in trials.running()]
        if not others:
            return
        if not waits:
            _say(f"pdml: waiting for trials of other processes: {', '.join(map(str, others))}")
        waits = True
        time.sleep(POLL)
    _say(f"pdml: tune.timeout={limit:g} is over; the same command goes on from here")


def _line(question: Question, trials: Trials, number: int, evaluation: Evaluation) -> str:
    """``[3/20] val_dbi .412 (best .398, trial 1)  defense.q=0.3  12 s``."""
    objective, told = question.settings.objective, trials.told()
    chosen = next(point for known, point, _ in told if known == number)
    value = evaluation.values.get(objective)
    if evaluation.state == "complete" and value is not None:
        what = f"{objective} {formats.metric_value(objective, value.mean)}"
    else:
        what = f"{evaluation.state}: {evaluation.reason}"
    best = _best(question, told)
    at_best = "" if best is None else f" (best {formats.metric_value(objective, best[1])}, trial {best[0]})"
    words = " ".join(f"{key}={text}" for key, text in chosen.items())
    # of a training that was ended nothing is built, but something was computed
    cached = ", from the store" if not evaluation.built and evaluation.state in MEASURED else ""
    return f"[{number + 1}/{question.trials}] {what}{at_best}  {words}  {formats.seconds(evaluation.seconds)}{cached}"


def _best(
    question: Question, told: Sequence[tuple[int, dict[str, str], Evaluation]]
) -> tuple[int, float] | None:
    complete = [(number, done.values) for number, _, done in told if done.state == "complete"]
    values = [(number, found[question.settings.objective].mean) for number, found in complete]
    sign = -1 if question.settings.direction == "maximize" else 1
    return min(values, key=lambda one: sign * one[1], default=None)


def _report(result: TuneResult, folder: Path) -> int:
    os.environ.setdefault("MPLCONFIGDIR", str((folder.parents[1] / "cache" / "matplotlib").resolve()))
    page = write_tune_report(folder, result)
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
    for table in tune_tables(result, SHOWN):
        print_table(table, console)
    best = result.best
    if best is None:
        _say("pdml: no trial has a value: see the states in the report")
    else:
        console.print("Best on validation images (optimistic: the best of them all); on test images:")
        console.print(f"  {best.command}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Report: {page}", soft_wrap=True, highlight=False, markup=False)
    if result.failed:
        _say(f"pdml: {again(result.failed)}")
    return int(best is None or bool(result.failed))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
