"""From stored artifacts to the rows, figures and notes of a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

from pdm_lightning.card import judge
from pdm_lightning.report.formats import NORMS
from pdm_lightning.report.results import Failure, StudyResult
from pdm_lightning.report.rows import Row, row_of
from pdm_lightning.stages.agreement import agreement
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Artifact, CorruptArtifact
from pdm_lightning.study import averages, compare, measure
from pdm_lightning.study.evidence import gather
from pdm_lightning.study.execute import Failed, Outcome
from pdm_lightning.study.figures import figures
from pdm_lightning.study.made import made
from pdm_lightning.study.plan import Entry, Node, Plan, Worst
from pdm_lightning.study.shown import asked, hidden

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
    # what draws and tracks, and SciPy: planning need not wait for them
    from pdm_lightning.claims import judge_claims
    from pdm_lightning.study.gallery import galleries

    reader = _Reader(context, outcome)
    answers = [(entry, list(reader.rows(entry))) for entry in plan.entries]
    rows = [row for _, found in answers for row in found]
    settings = plan.settings
    notes = {row.artifact: row.note for row in rows}
    rows += compare.rows(plan.compared, reader.artifact, reader._status, bandwidth, notes)
    rows += averages.rows(plan.averaged, reader.artifact, reader._status, bandwidth)
    rows += measure.rows(plan.measured, reader.artifact, reader._status, bandwidth, notes)
    rows = _distinct([*rows, *reader.worst(plan.worst, notes)])
    failures = [
        Failure(f"{f.node.kind} {f.node.title}", f.error, f.traceback_path) for f in outcome.failed.values()
    ]
    shown, missing = galleries(plan, context, reader.artifact)
    evidence = gather(plan, reader.artifact, rows, (failure.node for failure in failures))
    labels = _labels(plan)
    return StudyResult(
        name=settings["name"],
        title=settings["title"] or settings["name"],
        description=settings["description"],
        rows=rows,
        card=None if evidence is None else judge(evidence),
        claims=judge_claims(rows, labels) if settings["report"]["claims"] else [],
        figures=figures(plan, reader.artifact, answers),
        tables=asked(plan.entries, "tables"),
        hidden=hidden(plan.entries),
        labels=labels,
        fitted=averages.fitted(plan.entries),
        notes=_notes(plan, outcome) + missing,
        failures=failures,
        gallery=shown,
        settings=_settings(plan) | made(plan, reader.artifact),
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
        attacked = common | _attack_names(entry)
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
            low, high = clean.get("intervals", {}).get(metric, (None, None))
            yield row_of(common, metric, {"value": clean[metric], "low": low, "high": high, "n": clean["n"]})
        common["artifact"] = entry.nodes["train"].key
        for metric in TRAINED:
            if trained.get(metric) is not None:
                yield row_of(common, metric, {"value": float(trained[metric])})
        if "collapse" in trained:
            yield row_of(common, "class_cosine", {"value": trained["collapse"]["cosine"]})

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
        others = [name for name in measured if name not in (*ATTACKED, "thresholds", "candidates")]
        for metric in (*ATTACKED, *others):
            yield row_of(common, metric, measured[metric])
        yield from self._agreement(entry, common)

    def _agreement(self, entry: Entry, common: dict[str, Any]) -> Iterator[Row]:
        """How often a distilled proxy and its target agree on validation images."""
        node = entry.nodes.get("surrogate")
        artifact = self.artifact(node) if node is not None and node.kind == "proxy" else None
        if node is not None and artifact is not None:
            place = {"artifact": node.key, "attack": "none", "n_attacked": None, "note": ""}
            yield row_of(common | place, "proxy_agreement", asdict(agreement(artifact)))

    def worst(self, runs: Iterable[Worst], notes: dict[str, str]) -> Iterator[Row]:
        """Each image in the hands of the attack that harms it most; the caps of the attacks are its caps.

        Parameters
        ----------
        runs : iterable of Worst
        notes : dict of str to str
            Of the rows, by the key of their ``score`` artifact.
        """
        for worst in runs:
            cell, artifact = worst.cell, self.artifact(worst.node)
            names = {group: cell.name(group) for group in ("data", "model", "defense", "budget", "detector")}
            common = names | {"seed": cell.config["seed"], "threat": "worst_case", "attack": worst.name}
            common |= {"bandwidth": bandwidth(cell.config["detector"]), "artifact": worst.node.key}
            if artifact is None:
                for fpr in cell.config["evaluate"]["fpr"]:
                    yield Row(**common, metric=f"joint_success@{fpr:g}", status=self._status(worst.node))
                continue
            told = [
                part
                for parent in worst.node.parents.values()
                for part in notes.get(parent.key, "").split("; ")
            ]
            told = [part for part in dict.fromkeys(told) if part and part != "declared lean"]
            measured = artifact.json("worst.json")
            for metric in (name for name in measured if "@" in name):
                row = row_of(common, metric, measured[metric])
                note = "; ".join([*told, f"{measured['attacks']} attacks"])
                yield replace(row, n_attacked=measured["images"], note=note)


def _attack_names(entry: Entry) -> dict[str, Any]:
    names = {group: entry.cell.name(group) for group in ("threat", "attack", "detector")}
    return names | {"bandwidth": bandwidth(entry.cell.config["detector"])}


def bandwidth(detector: dict[str, Any]) -> str | float:
    """The bandwidth rule or number of a detector's configuration, as ``validation x0.5`` where it is scaled."""
    rule, scale = detector.get("bandwidth", ""), float(detector.get("bandwidth_scale", 1.0))
    return rule if scale == 1 else f"{rule} x{scale:g}"


def _caps(entry: Entry, counts: dict[str, Any]) -> list[str]:
    """What the budget took from the attack, and whether the attack is declared lean."""
    parts = []
    if counts["candidates"] < counts["test_images"]:
        parts.append(f"{counts['candidates']} of {counts['test_images']} test images")
    if entry.note:
        parts.append(entry.note)
    caps = [f"capped: {', '.join(parts)}"] if parts else []
    return caps + (["declared lean"] if entry.cell.config["attack"].get("lean") else [])


def _labels(plan: Plan) -> dict[str, dict[str, str]]:
    labels: dict[str, dict[str, str]] = {}
    for entry in plan.entries:
        for group in ("data", "model", "defense", "attack", "threat", "detector", "budget"):
            labels.setdefault(group, {})[entry.cell.name(group)] = entry.cell.label(group)
    for worst in plan.worst:
        ball = f"{NORMS.get(worst.node.spec['norm'], worst.node.spec['norm'])} <= {worst.node.spec['eps']:g}"
        labels["attack"][worst.name] = f"Worst case, {ball}"
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
