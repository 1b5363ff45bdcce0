"""From the trials of a search to its report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from pdm_lightning.report import formats
from pdm_lightning.report.tune import Number, Searched, Trial, TuneResult
from pdm_lightning.study.tune_history import Trials
from pdm_lightning.study.tune_question import Question
from pdm_lightning.study.tune_space import place
from pdm_lightning.study.tune_trial import Evaluation


def collect(question: Question, trials: Trials, command: str, version: str) -> TuneResult:
    """Everything that the report shows.

    Parameters
    ----------
    question : Question
    trials : Trials
    command, version : str
        What was typed, and the package's version.
    """
    config, settings = question.config, question.settings
    told = trials.told()
    first: dict[str, int] = {}
    rows = []
    for number, chosen, evaluation in told:
        point = json.dumps(chosen, sort_keys=True)
        earlier = first.setdefault(point, number)
        rows.append(_trial(question, number, chosen, evaluation, earlier if earlier != number else None))
    result = TuneResult(
        name=config["name"],
        title=config["title"] or f"Search {config['name']}",
        description=config["description"],
        objective=settings.objective,
        direction=settings.direction,
        metrics=settings.measured,
        space=[Searched(p.key, p.text, p.values, p.log) for p in question.space],
        trials=rows,
        importances=trials.importances(),
        settings=_settings(question),
        study={"key": question.key, **question.described},
        command=command,
        version=version,
    )
    result.notes = _notes(question, result, len(trials.running()), sum(bool(e.stale) for _, _, e in told))
    return result


def _trial(
    question: Question, number: int, chosen: dict[str, str], evaluation: Evaluation, repeats: int | None
) -> Trial:
    values = {
        name: Number(value.mean, value.sd, value.n, value.seeds) for name, value in evaluation.values.items()
    }
    return Trial(
        number=number,
        params=chosen,
        state=evaluation.state,
        reason=evaluation.reason,
        values=values,
        seconds=evaluation.seconds,
        built=evaluation.built,
        repeats=repeats,
        trainings=tuple(evaluation.trainings),
        command=run_command(question, chosen),
    )


def run_command(question: Question, chosen: dict[str, str]) -> str:
    """The command that runs the study with the values of a trial, with as many seeds, and reports of test images."""
    own = ("seed", "name")
    kept = [
        word
        for word in question.fixed
        if (key := place(word.partition("=")[0])) not in own and not key.startswith("tune.")
    ]
    words = [
        *kept,
        *(f"{key}={value}" for key, value in chosen.items()),
        f"name={question.config['name']}_best",
    ]
    first, count = int(question.config["seed"]), question.settings.seeds
    if count > 1:
        return shlex.join(
            ["pdml", "run", "-m", *words, f"seed={','.join(str(first + k) for k in range(count))}"]
        )
    return shlex.join(["pdml", "run", *words, *([f"seed={first}"] if first else [])])


def again(failed: Sequence[Trial]) -> str:
    """What becomes of trials that failed."""
    what, whom = ("trial", "it") if len(failed) == 1 else ("trials", "them")
    return f"{len(failed)} {what} failed: the same command tries {whom} again"


def _notes(question: Question, result: TuneResult, running: int, stale: int) -> list[str]:
    settings, best, label = question.settings, result.best, formats.metric_label(result.objective)
    notes = []
    if best is not None:
        value = best.values[result.objective]
        notes.append(
            f"Best: trial {best.number}, {label} {formats.metric_value(result.objective, value.mean)} on {value.n} "
            f"validation images. It is the best of {len(result.ranked)} trials, chosen by these very images, and so an "
            "optimistic number: expect less of images that had no part in the choice."
        )
        notes.append(f"No test image was looked at. On test images, once: {best.command}")
    else:
        notes.append("No trial has a value.")
    if settings.attacked:
        notes.append(
            "AUCs: the attack works on one half of the validation images; the detector is fitted on training images, "
            "and its bandwidth on the other half."
        )
    notes.append(
        "The study that is run afterwards freezes its thresholds, and sets its bandwidth, on the same validation "
        "images: its realised false-positive rate on test images stands in its report."
    )
    missing = question.trials - len(result.trials)
    if missing > 0:
        notes.append(f"{missing} of {question.trials} trials are still to come ({running} running).")
    if result.failed:
        notes.append(f"{again(result.failed)}.")
    if stale:
        notes.append(
            f"Stale: {stale} trials rest on artifacts of another version of the code; name=... with "
            "store.on_stale=rebuild searches anew."
        )
    return notes


def _settings(question: Question) -> dict[str, str]:
    config, settings = question.config, question.settings
    train = config["budget"]["train"]
    shown = {
        "data": str(config["data"]["name"] or config["data"].get("root")),
        "budget": str(config["budget"]["name"]),
        "training": ", ".join(f"{key}={value}" for key, value in train.items() if value is not None),
        "seeds of a trial": str(settings.seeds),
        "sampler": f"{settings.sampler}, seed {settings.seed}",
        "pruning": settings.pruning,
        "fixed": " ".join(question.fixed),
        "study": question.key,
        "output": str(config["paths"]["output"]),
    }
    if settings.attacked:
        names = {
            key: str(config[key].get("label") or config[key]["name"])
            for key in ("attack", "threat", "detector")
        }
        shown |= names
    return shown
