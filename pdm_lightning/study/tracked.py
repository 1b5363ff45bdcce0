"""From the artifacts and rows of a study to the runs that a tracker gets."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from pdm_lightning.manifest import content_digest
from pdm_lightning.report import StudyResult
from pdm_lightning.report.rows import COLUMNS, Row
from pdm_lightning.stages.agreement import agreement
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Artifact, CorruptArtifact
from pdm_lightning.study import exhibits
from pdm_lightning.study.cell import GROUPS
from pdm_lightning.study.checks import at, choice, flag, number, only, shown, text, words
from pdm_lightning.study.plan import Entry, Node, Plan, Worst
from pdm_lightning.tracking import (
    MODES,
    MOST_IMAGES,
    Content,
    Example,
    Measured,
    Record,
    Table,
    Upload,
    track,
    wandb_mode,
)

log = logging.getLogger(__name__)

#: What of a cell's configuration says where and how it is run, not what it is.
_PLACES = {"paths", "logger", "trainer", "report", "store", "title", "description"}
#: How long a project's name may be at W&B, and what it may not have in it.
_LONGEST, _FORBIDDEN = 128, "/\\#?%:"
#: Files that a training leaves, and those that a crafting does.
_MODEL, _SET = ("model.safetensors", "data.json", "train.json"), ("adversarial.safetensors", "craft.json")


def track_study(plan: Plan, result: StudyResult, context: Context) -> str:
    """Track every training and every cell of a study that has ended, as ``logger`` asks.

    Returns
    -------
    str
        What was done, in one line; empty where there was nothing to do. Trouble is a warning, never an error: the
        results are in the store and in the report.
    """
    cfg = plan.settings["logger"]
    if cfg["name"] == "csv":
        return ""
    try:
        folder = Path(plan.settings["paths"]["output"]) / "logs"
        return track(_Records(plan, result, context).all(), cfg, folder, str(plan.settings["name"]))
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        log.warning("logger=%s failed (%s): the study is complete without it", cfg["name"], what)
        return ""


def check_logger(config: dict[str, Any]) -> None:
    """Whether the ``logger`` of a configuration can be had.

    Raises
    ------
    ValueError
        Names the override to change.
    """
    only(config, "logger", ("name", "project", "entity", "tags", "mode", "tsne", "images", "upload"))
    choice(config, "logger.name", ("csv", "wandb", "tensorboard"))
    choice(config, "logger.mode", MODES)
    number(config, "logger.images", 0, MOST_IMAGES)
    flag(config, "logger.tsne")
    words(config, "logger.upload", ("models", "adversarial"))
    tags, project = at(config, "logger.tags"), at(config, "logger.project")
    # a number is as good as a text: a year
    if not isinstance(tags, list) or not all(isinstance(t, str | int) and str(t).strip() for t in tags):
        raise ValueError(
            f"logger.tags={shown(tags)}: a list of texts needed, as 'logger.tags=[thesis,first]'"
        )
    text(config, "logger.project")
    if len(project) > _LONGEST or set(project) & set(_FORBIDDEN):
        raise ValueError(
            f"logger.project={project}: W&B takes at most {_LONGEST} letters, and none of {' '.join(_FORBIDDEN)}"
        )
    text(config, "logger.entity", optional=True)
    name = config["logger"]["name"]
    if name != "csv" and importlib.util.find_spec(name) is None:
        raise ValueError(f"logger={name}: its package is not installed: pip install {name}")
    if name == "wandb":
        wandb_mode(config["logger"]["mode"])


class _Records:
    """Makes a record of each training and of each cell; what they hold is read only when it is asked for."""

    def __init__(self, plan: Plan, result: StudyResult, context: Context) -> None:
        self.plan, self.context = plan, context
        self.cfg: dict[str, Any] = plan.settings["logger"]
        self.warned = False
        self.rows: dict[str, list[Row]] = {}
        for row in result.rows:
            self.rows.setdefault(row.artifact, []).append(row)

    def all(self) -> Iterator[Record]:
        """Trainings first."""
        # of several, the one that keeps no further layers: it is the one that the report's figures are made from
        kept = sorted((n for n in self.plan if n.kind == "features"), key=lambda n: "layers" not in n.spec)
        features = {node.parents["train"].key: node for node in kept}
        clean = {entry.nodes["train"].key: entry for entry in reversed(self.plan.entries)}
        for node in self.plan:
            if node.kind in ("train", "proxy"):
                artifact = self._open(node)
                if artifact is not None:
                    yield self._training(node, artifact, clean.get(node.key), features.get(node.key))
        seen: set[str] = set()
        for entry in self.plan.entries:
            if "score" in entry.nodes and entry.nodes["score"].key not in seen:
                seen.add(entry.nodes["score"].key)
                yield from self._cell(entry)
        for worst in self.plan.worst:
            yield from self._worst(worst)

    def _open(self, node: Node) -> Artifact | None:
        try:
            return self.context.artifact(node)
        except (FileNotFoundError, CorruptArtifact):  # the report tells of it
            return None

    def _training(self, node: Node, artifact: Artifact, entry: Entry | None, features: Node | None) -> Record:
        trained = artifact.json("train.json")
        metrics = {
            name: Measured(float(trained[name]))
            for name in ("val_accuracy", "seconds", "images_seen", "collapsed")
            if trained.get(name) is not None
        }
        if node.kind == "proxy":
            metrics["proxy_agreement"] = Measured(*astuple(agreement(artifact)))
        metrics |= _metrics(self.rows.get(entry.nodes["clean"].key, []) if entry else [])
        settings = node.runtime["axes"], node.spec

        def load() -> Content:
            content = Content(history=_history(artifact))
            if self.cfg["tsne"] and features is not None and self._open(features) is not None:
                config = (entry or self.plan.entries[0]).cell.config["tsne"]
                exhibits.embeddings(content, self.context, features, config, node.title)
            facts = {"parameters": trained["parameters"], "val_accuracy": trained["val_accuracy"]}
            content.uploads.append(_upload("model", "models", artifact, _MODEL, facts))
            return content

        return self._record(node, "train", node.title, *settings, metrics, [artifact], load)

    def _cell(self, entry: Entry) -> Iterator[Record]:
        node, cell = entry.nodes["score"], entry.cell
        axes: dict[str, Any] = {group: cell.name(group) for group in GROUPS} | {"seed": cell.config["seed"]}
        rows = [
            row
            for row in self.rows.get(node.key, [])
            if (row.threat, row.attack, row.detector) == (axes["threat"], axes["attack"], axes["detector"])
        ]
        settings = {key: value for key, value in cell.config.items() if key not in _PLACES}
        title = _title(axes)
        failed = [row for row in rows if row.status == "failed"]
        if failed:
            yield self._record(node, "cell", title, axes, settings, {}, [], error=failed[0].note or "failed")
            return
        score, craft = self._open(node), self._open(entry.nodes["craft"])
        if score is None or craft is None:
            return
        clean = self.rows.get(entry.nodes["clean"].key, [])
        load = self._exhibits(entry, score, craft, rows)
        yield self._record(
            node, "cell", title, axes, settings, _metrics([*clean, *rows]), [score, craft], load
        )

    def _worst(self, worst: Worst) -> Iterator[Record]:
        """Each image in the hands of the attack that harms it most: numbers alone."""
        artifact, rows = self._open(worst.node), self.rows.get(worst.node.key, [])
        if artifact is None:
            return
        axes: dict[str, Any] = {group: worst.cell.name(group) for group in GROUPS}
        axes |= {"threat": "worst_case", "attack": worst.name, "seed": worst.cell.config["seed"]}
        content = Content(tables={"results": _table(rows)})
        yield self._record(
            worst.node,
            "worst_case",
            _title(axes),
            axes,
            worst.node.spec,
            _metrics(rows),
            [artifact],
            lambda: content,
        )

    def _exhibits(
        self, entry: Entry, score: Artifact, craft: Artifact, rows: list[Row]
    ) -> Callable[[], Content]:
        def load() -> Content:
            content = Content(tables={"results": _table(rows)})
            exhibits.detection(content, score, entry)
            content.examples = self._examples(entry, score, craft)
            facts = {"attack": craft.json("craft.json")["attack"], "model": entry.nodes["train"].key}
            content.uploads.append(_upload("adversarial", "adversarial", craft, _SET, facts))
            return content

        return load

    def _examples(self, entry: Entry, score: Artifact, craft: Artifact) -> list[Example]:
        """Attacked images beside their originals; none where the originals are no longer there, which it says once."""
        count = int(self.cfg["images"])
        try:
            data = self.context.data(entry.nodes["craft"]) if count else None
        except (OSError, ValueError) as error:
            if not self.warned:
                what = " ".join(str(error).split())
                log.warning("logger=%s: cells are tracked without images: %s", self.cfg["name"], what)
            self.warned = True
            return []
        return [] if data is None else exhibits.examples(craft, score, data, count)

    def _record(
        self,
        node: Node,
        job: str,
        title: str,
        axes: dict[str, Any],
        settings: dict[str, Any],
        metrics: dict[str, Measured],
        artifacts: list[Artifact],
        load: Callable[[], Content] = Content,
        error: str = "",
    ) -> Record:
        made = {"metrics": metrics, "files": [content_digest(a.path) for a in artifacts], "error": error}
        shown = {key: self.cfg[key] for key in ("images", "tsne", "upload", "tags")}
        text = json.dumps([made, shown], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return Record(node.key, job, title, axes, settings, metrics, digest, load, error)


def _title(axes: dict[str, Any]) -> str:
    shown = (str(axes[group]) for group in GROUPS if group != "budget")
    return " ".join([*shown, f"seed={axes['seed']}"])


def _metrics(rows: list[Row]) -> dict[str, Measured]:
    """By name; where two rows have one, the later one's counts (a cell's own before its model's)."""
    return {row.metric: Measured(row.value, row.ci_low, row.ci_high, row.n) for row in rows}


def _table(rows: list[Row]) -> Table:
    return Table(list(COLUMNS), [[getattr(row, column) for column in COLUMNS] for row in rows])


def _history(artifact: Artifact) -> list[dict[str, float]]:
    """Rows of a training's log; an empty field is a value that the row does not have."""
    text = artifact.file("log.csv").read_text(encoding="utf-8")
    return [
        {name: float(value) for name, value in line.items() if value}
        for line in csv.DictReader(io.StringIO(text))
    ]


def _upload(
    prefix: str, kind: str, artifact: Artifact, names: tuple[str, ...], facts: dict[str, Any]
) -> Upload:
    files = tuple(artifact.file(name) for name in names)
    made = {
        "key": artifact.key,
        "created": artifact.manifest["created"],
        "version": artifact.manifest["version"],
    }
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in facts.items()}
    return Upload(f"{prefix}-{artifact.key}", kind, files, content_digest(artifact.path), made | plain)
