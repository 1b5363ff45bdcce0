"""One trial: the trainings of a point of the search space, and what they are worth on validation images."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pdm_lightning.stages.context import Context
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.execute import Failed, Outcome, execute, preflight
from pdm_lightning.study.kept import remember
from pdm_lightning.study.plan import Entry, Node, Plan, make_plan
from pdm_lightning.study.specs import score_spec
from pdm_lightning.study.tune_objectives import OBJECTIVES, Settings
from pdm_lightning.study.tune_question import Question
from pdm_lightning.threat import needs

#: How a trial may end. Only a complete one has a value; ``failed`` is the one that nobody expects.
STATES = ("complete", "pruned", "diverged", "collapsed", "n/a", "failed")
#: Those whose trainings went to their ends.
MEASURED = ("complete", "collapsed", "n/a")
History = Sequence[Mapping[str, float]]
#: Looks at a training's rows so far; the text says why it need not go on, and is empty where it does.
Watch = Callable[[History], str]


class Pruned(BaseException):
    """A training that need not go on: no failure, so that nobody records it as one."""


@dataclass(frozen=True)
class Value:
    """What the trainings of a trial came to: mean and deviation over the seeds, and the fewest images behind one."""

    mean: float
    sd: float | None
    n: int
    seeds: tuple[float, ...]


@dataclass
class Evaluation:
    """How a trial ended.

    Attributes
    ----------
    state, reason : str
        One of `STATES`; why it has no value.
    values : dict of str to Value
        By objective, as far as it was measured.
    seconds : float
        Of this process.
    built, stale : int
        Artifacts that were made, and those found that another version of the code had made.
    trainings : list of str
        Keys of the ``train`` artifacts.
    """

    state: str = "complete"
    reason: str = ""
    values: dict[str, Value] = field(default_factory=dict)
    seconds: float = 0.0
    built: int = 0
    stale: int = 0
    trainings: list[str] = field(default_factory=list)


def nodes(cell: Cell, settings: Settings) -> dict[str, Node]:
    """The nodes of one training, by kind: none of them is judged on a test image.

    Raises
    ------
    PermissionError
        Where the attack asks for what the threat model withholds.
    """
    entry = make_plan([_plain(cell, settings)]).entries[0]
    own = entry.nodes
    found = {"train": own["train"], "features": own["features"]}
    found["val_clean"] = Node("val_clean", {}, {"features": own["features"]}, {}, own["features"].title)
    if not settings.attacked:
        return found
    judge, craft = own["detector"], own["craft"]
    detector = Node("val_detector", judge.spec, judge.parents, judge.runtime, judge.title)
    # an attacker of the detector works on the one that judges it
    parents = craft.parents | ({"detector": detector} if "detector" in needs(cell.config["attack"]) else {})
    if "surrogate" in craft.parents and "detector" in craft.parents:
        parents["detector"] = craft.parents["detector"]  # its own, on the surrogate
    attacked = Node("val_craft", craft.spec, parents, craft.runtime, craft.title)
    spec = {key: score_spec(cell.config)[key] for key in ("bootstrap", "min_n")}
    score = Node("val_score", spec, {"craft": attacked, "detector": detector}, {}, craft.title)
    return found | {"val_detector": detector, "val_craft": attacked, "val_score": score}


def check(question: Question, context: Context) -> None:
    """Plan points that stand for the space, and read the data, before anything is computed.

    Raises
    ------
    PermissionError, FileNotFoundError, ValueError
        Where an attack is refused, or the data are not there.
    """
    for cell in question.corners:
        preflight(Plan([Entry(cell, nodes(cell, question.settings))]), context)


def _plain(cell: Cell, settings: Settings) -> Cell:
    """The cell without what a study computes beside its scores, and without an attack that nothing asks for."""
    config = cell.config | {"card": cell.config["card"] | {"run": "none"}}
    if not settings.attacked:
        config["attack"] = config["attack"] | {"name": "none"}
    return replace(cell, config=config)


def evaluate(question: Question, chosen: Mapping[str, str], context: Context, watch: Watch) -> Evaluation:
    """Train and measure a point of the space, with one seed after the other.

    Parameters
    ----------
    question : Question
    chosen : mapping of str to str
        The point: value by key.
    context : Context
    watch : callable
        Looks at the first training's rows after each segment, or once where it is stored.
    """
    started, done = time.monotonic(), Evaluation()
    measured: dict[str, list[tuple[float | None, int]]] = {name: [] for name in question.settings.measured}
    for seed in range(question.settings.seeds):
        cell = question.cell(chosen, seed)
        own = nodes(cell, question.settings)
        done.trainings.append(own["train"].key)
        done.state, done.reason = _training(
            cell, own, question.settings, context, watch if not seed else None, done
        )
        if done.state != "complete":
            break
        outcome = _execute(cell, own, context, done)
        if outcome.failed:
            done.state, done.reason = _why(next(iter(outcome.failed.values())))
            break
        for name in measured:
            objective = OBJECTIVES[name]
            entry = context.artifact(own[objective.kind]).json(objective.file)[objective.key]
            measured[name].append((entry["value"], entry["n"]))
    done.values = {name: value for name, rows in measured.items() if (value := _value(rows)) is not None}
    if done.state == "complete" and question.settings.objective not in done.values:
        n = min((n for _, n in measured[question.settings.objective]), default=0)
        done.state, done.reason = "n/a", f"{question.settings.objective} rests on {n} images: too few to say"
    done.seconds = time.monotonic() - started
    return done


def _training(
    cell: Cell,
    own: dict[str, Node],
    settings: Settings,
    context: Context,
    watch: Watch | None,
    done: Evaluation,
) -> tuple[str, str]:
    """Train, and judge the training by itself."""

    def look(node: Node, history: History) -> None:
        verdict = watch(history) if watch is not None and node.key == own["train"].key else ""
        if verdict:
            raise Pruned(verdict)

    context.watch = look
    try:
        outcome = _execute(cell, {"train": own["train"]}, context, done)
        if outcome.failed:
            return _why(outcome.failed[own["train"].key])
        told = context.artifact(own["train"]).json("train.json")
        # a training that was there already is judged as if it had run now
        look(own["train"], told["history"][:-1])
    except Pruned as verdict:
        return "pruned", str(verdict)
    finally:
        context.watch = None
    if told["collapsed"] and settings.collapsed == "prune":
        cosine = told["collapse"]["cosine"]
        return "collapsed", f"seed {cell.config['seed']}: the classes merged (mean cosine {cosine:.3f})"
    return "complete", ""


def _execute(cell: Cell, own: dict[str, Node], context: Context, done: Evaluation) -> Outcome:
    plan = Plan([Entry(cell, own)])
    preflight(plan, context)
    study = Path(cell.config["paths"]["output"]) / "tune" / str(cell.config["name"])
    remember(plan, study, own["train"].key)
    outcome = execute(plan, context, say=lambda _: None)
    done.built += outcome.built
    done.stale = max(done.stale, outcome.stale)
    return outcome


def _why(failed: Failed) -> tuple[str, str]:
    if failed.error.startswith("TrainingDiverged: "):
        return "diverged", failed.error.removeprefix("TrainingDiverged: ")
    return "failed", f"{failed.node.kind}: {failed.error} (traceback: {failed.traceback_path})"


def _value(rows: list[tuple[float | None, int]]) -> Value | None:
    """Mean over the seeds; None where one of them has no number."""
    numbers = [value for value, _ in rows if value is not None and math.isfinite(value)]
    if not numbers or len(numbers) < len(rows):
        return None
    sd = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Value(statistics.fmean(numbers), sd, min(n for _, n in rows), tuple(numbers))


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Plain values of an evaluation."""
    values = {name: vars(value) | {"seeds": list(value.seeds)} for name, value in evaluation.values.items()}
    return vars(evaluation) | {"values": values}


def from_json(content: Mapping[str, Any]) -> Evaluation:
    """Back from plain values."""
    values = {
        name: Value(value["mean"], value["sd"], value["n"], tuple(value["seeds"]))
        for name, value in content["values"].items()
    }
    return Evaluation(**{**content, "values": values})
