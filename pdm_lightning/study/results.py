"""From stored artifacts to the rows, figures and notes of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from pdm_lightning.report.results import Failure, Row, StudyResult
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Artifact, CorruptArtifact
from pdm_lightning.study.execute import Failed, Outcome
from pdm_lightning.study.figures import figures
from pdm_lightning.study.plan import Entry, Node, Plan

CLEAN = ("accuracy", "dbi", "cluster_variance", "cluster_distance")
TRAINED = ("val_accuracy", "seconds", "images_seen", "collapsed")
_NAMES = ("data", "model", "defense", "seed", "budget", "threat", "attack", "detector", "bandwidth", "metric")
ATTACKED = (
    "auc",
    "auc_all",
    "success_rate",
    "misclassified_rate",
    "robust_accuracy",
    "l2_mean",
    "linf_mean",
    "l0_mean",
    "passes",
    "seconds",
)


def collect(plan: Plan, context: Context, outcome: Outcome, command: str, version: str) -> StudyResult:
    """Read what is stored; what failed or is missing becomes a row that says so."""
    reader = _Reader(context, outcome)
    answers = [(entry, list(reader.rows(entry))) for entry in plan.entries]
    settings = plan.settings
    return StudyResult(
        name=settings["name"],
        title=settings["title"] or settings["name"],
        description=settings["description"],
        rows=_distinct(row for _, rows in answers for row in rows),
        figures=figures(plan, reader.artifact, answers),
        tables=list(settings["report"]["tables"]),
        labels=_labels(plan),
        notes=_notes(plan, outcome),
        failures=[
            Failure(f"{f.node.kind} {f.node.title}", f.error, f.traceback_path)
            for f in outcome.failed.values()
        ],
        settings=_settings(plan),
        command=command,
        version=version,
    )


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Rows without repetition: cells that share a model all bring its clean rows."""
    named = {tuple(getattr(row, column) for column in _NAMES): row for row in rows}
    return list(named.values())


class _Reader:
    """Turns the nodes of an entry into rows."""

    def __init__(self, context: Context, outcome: Outcome) -> None:
        self.context, self.outcome = context, outcome
        self._opened: dict[str, Artifact | None] = {}

    def artifact(self, node: Node) -> Artifact | None:
        """The node's artifact, or None."""
        if node.key not in self._opened:
            try:
                self._opened[node.key] = self.context.artifact(node)
            except FileNotFoundError:
                self._opened[node.key] = None
            except CorruptArtifact as error:
                self._opened[node.key] = None
                self.outcome.failed.setdefault(node.key, Failed(node, str(error)))
        return self._opened[node.key]

    def _status(self, node: Node) -> str:
        return "failed" if node.key in self.outcome.failed or node.key in self.outcome.skipped else "missing"

    def rows(self, entry: Entry) -> Iterator[Row]:
        config = entry.cell.config
        names = {group: entry.cell.name(group) for group in ("data", "model", "defense", "budget")}
        common: dict[str, Any] = names | {"seed": config["seed"]}
        train = self.artifact(entry.nodes["train"])
        trained = train.json("train.json") if train else {}
        note = "collapsed" if trained.get("collapsed") else ""
        yield from self._clean(entry, common, trained, note)
        if config["attack"]["name"] == "none":
            return
        attacked = common | {
            "threat": entry.cell.name("threat"),
            "attack": entry.cell.name("attack"),
            "detector": entry.cell.name("detector"),
            "bandwidth": config["detector"].get("bandwidth", ""),
        }
        if entry.refused:
            yield Row(**attacked, metric="auc", status="refused", note=entry.refused)
            return
        yield from self._attacked(entry, attacked, note)

    def _clean(
        self, entry: Entry, common: dict[str, Any], trained: dict[str, Any], note: str
    ) -> Iterator[Row]:
        node = entry.nodes["clean"]
        artifact = self.artifact(node)
        if artifact is None:
            yield Row(**common, metric="accuracy", status=self._status(node), artifact=node.key)
            return
        clean = artifact.json("clean.json")
        accuracy = clean["accuracy"]
        common = common | {"artifact": node.key, "note": note}
        yield Row(
            **common,
            metric="accuracy",
            value=accuracy["value"],
            ci_low=accuracy["low"],
            ci_high=accuracy["high"],
            n=accuracy["n"],
        )
        for metric in CLEAN[1:]:
            yield _row(common, metric, {"value": clean[metric], "n": clean["n"]})
        common["artifact"] = entry.nodes["train"].key
        for metric in TRAINED:
            if trained.get(metric) is not None:
                yield _row(common, metric, {"value": float(trained[metric])})

    def _attacked(self, entry: Entry, common: dict[str, Any], note: str) -> Iterator[Row]:
        node = entry.nodes["score"]
        score, craft = self.artifact(node), self.artifact(entry.nodes["craft"])
        common = common | {"artifact": node.key}
        if score is None or craft is None:
            failed = [
                self.outcome.failed[n.key] for n in entry.nodes.values() if n.key in self.outcome.failed
            ]
            yield Row(
                **common, metric="auc", status=self._status(node), note=failed[0].error if failed else ""
            )
            return
        counts = craft.json("craft.json")
        notes = [*_caps(entry, counts), note]
        common |= {"n_attacked": counts["attacked"], "note": "; ".join(part for part in notes if part)}
        measured = score.json("score.json")
        for metric in ATTACKED:
            yield _row(common, metric, measured[metric])


def _caps(entry: Entry, counts: dict[str, Any]) -> list[str]:
    """What the budget took from the attack, and whether the attack is declared lean."""
    parts = []
    if counts["candidates"] < counts["test_images"]:
        parts.append(f"{counts['candidates']} of {counts['test_images']} test images")
    if entry.note:
        parts.append(entry.note)
    caps = [f"capped: {', '.join(parts)}"] if parts else []
    return caps + (["declared lean"] if entry.cell.config["attack"].get("lean") else [])


def _row(common: dict[str, Any], metric: str, measured: dict[str, Any]) -> Row:
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


def _labels(plan: Plan) -> dict[str, dict[str, str]]:
    labels: dict[str, dict[str, str]] = {}
    for entry in plan.entries:
        for group in ("data", "model", "defense", "attack", "threat", "detector", "budget"):
            labels.setdefault(group, {})[entry.cell.name(group)] = entry.cell.label(group)
    return labels


def _notes(plan: Plan, outcome: Outcome) -> list[str]:
    models = sorted({entry.cell.name("model") for entry in plan.entries})
    budgets = sorted({entry.cell.name("budget") for entry in plan.entries})
    notes = [f"Model: {', '.join(models)} (the paper's is a ResNet-56). Budget: {', '.join(budgets)}."]
    if any(entry.cell.name("data") == "digits" for entry in plan.entries):
        notes.append(
            "digits: scikit-learn's 1,797 real handwritten digits, 8x8 shown at 16x16; not a data set of the paper."
        )
    if outcome.stale:
        notes.append(
            f"Stale: {outcome.stale} of {len(plan.nodes)} artifacts were made by another version of the code; "
            "store.on_stale=rebuild makes them anew."
        )
    lean = [entry.cell.label("attack") for entry in plan.entries if entry.cell.config["attack"].get("lean")]
    if lean:
        notes.append(
            f"Declared lean, as in the paper: {', '.join(dict.fromkeys(lean))}; C&W-converged is the fuller search."
        )
    refused = sorted({entry.refused for entry in plan.entries if entry.refused})
    return notes + refused


def _settings(plan: Plan) -> dict[str, str]:
    config = plan.settings
    train = config["budget"]["train"]
    return {
        "output": str(config["paths"]["output"]),
        "optimizer": ", ".join(sorted({entry.cell.config["optimizer"]["name"] for entry in plan.entries})),
        "training": ", ".join(f"{key}={value}" for key, value in train.items() if value is not None),
        "bandwidth rule": str(config["detector"].get("bandwidth", "")),
        "bootstrap resamples": str(config["evaluate"]["bootstrap"]),
        "cells": str(len(plan.entries)),
    }
