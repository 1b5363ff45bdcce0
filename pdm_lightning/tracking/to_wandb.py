"""Writes runs to W&B: numbers, tables, curves, images, and artifacts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pdm_lightning.tracking.ledger import Ledger
from pdm_lightning.tracking.reach import current_mode
from pdm_lightning.tracking.records import Content, Curve, Example, Record, Table, example_table, numbers
from pdm_lightning.tracking.session import axis_tags, end_service, start, sweep_agent

STEP = "trainer/global_step"
#: W&B's type of artifact for each kind of upload.
_TYPES = {"models": "model", "adversarial": "adversarial"}


class WandbSink:
    """One W&B run a record; see `pdm_lightning.tracking.track.Sink`.

    Parameters
    ----------
    cfg : mapping
        The ``logger`` group.
    folder : Path
        Everything is written below it.
    group : str
        The study.
    ledger : Ledger
        Knows which rows of a training are there.
    """

    def __init__(self, cfg: Mapping[str, Any], folder: Path, group: str, ledger: Ledger) -> None:
        self.cfg, self.folder, self.group, self.ledger = cfg, Path(folder), group, ledger
        self.agent = sweep_agent()

    @property
    def mode(self) -> str:
        """As it is now: offline, once W&B could not be reached."""
        return current_mode(self.cfg.get("mode", "auto"), self.folder)

    @property
    def kinds(self) -> Sequence[str]:
        """As ``logger.upload`` names them."""
        kinds: Sequence[str] = self.cfg["upload"]
        return kinds

    def wanted(self, record: Record) -> bool:
        """A sweep's agent waits for the run that it has asked for, whatever is known of the cell."""
        return self.agent is not None and record.job == "cell"

    def write(self, record: Record, content: Content) -> None:
        """Write one run and close it, with a status of 1 where the record is a failure or something goes wrong."""
        agent = None
        if record.job == "cell":
            agent, self.agent = self.agent, None
        run = start(
            self.cfg,
            self.folder,
            record.key,
            config=self.config(record),
            group=self.group,
            job=record.job,
            name=record.title,
            tags=axis_tags(record.axes),
            agent=agent,
        )
        code, mode = 1, run.settings.mode
        rows = self.ledger.missing_rows(record.key, content.history, mode)
        try:
            self._fill(run, record, content, rows)
            code = int(bool(record.error))
        finally:
            run.finish(exit_code=code)
        self.ledger.note_rows(record.key, rows, mode)

    def config(self, record: Record) -> dict[str, Any]:
        """Axes by name, the settings behind them, and which studies have asked for the run."""
        config = {**record.axes, "key": record.key, "settings": dict(record.settings)}
        if record.job != "train":
            # what a bar of a chart stands for
            config["attack_and_defense"] = f"{record.axes['attack']} / {record.axes['defense']}"
        return config | {"studies": self.ledger.groups(record.key, self.group)}

    def settle(self) -> None:
        """Wait for W&B's own process, which writes the last of a file after its run has finished."""
        end_service()

    def told(self, runs: int) -> str:
        """How many, and, offline, how they are uploaded."""
        what = f"W&B: {runs} runs tracked, {self.mode}"
        place = self.folder / "wandb" / "offline-run-*"
        return f"{what}; to upload them: wandb sync {place}" if self.mode == "offline" else what

    @staticmethod
    def _fill(run: Any, record: Record, content: Content, rows: Iterable[dict[str, float]]) -> None:
        import wandb

        run.define_metric(STEP)
        for split in ("train", "val"):
            run.define_metric(f"{split}/*", step_metric=STEP)
        for row in rows:
            run.log({**row, STEP: int(row["step"])})
        media = dict(media_of(content))
        if media:
            run.log(media)
        run.summary.update(summary(record))
        for upload in content.uploads:
            artifact = wandb.Artifact(upload.name, _TYPES[upload.kind], metadata=dict(upload.facts))
            for path in upload.files:
                # the store's files never change, so nothing has to be copied
                artifact.add_file(str(path), policy="immutable", skip_cache=True)
            run.log_artifact(artifact)


def summary(record: Record) -> dict[str, Any]:
    """All numbers, by the names of ``results.csv``; where W&B could not sort by one, also by a name that it can."""
    found: dict[str, Any] = dict(numbers(record.metrics))
    found |= {sortable(name): value for name, value in found.items()}
    return found | ({"error": record.error} if record.error else {})


def sortable(name: str) -> str:
    """``joint_success@0.05`` as ``joint_success_0_05``: W&B sorts and filters by letters, digits and ``_`` alone."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def media_of(content: Content) -> Iterable[tuple[str, Any]]:
    """Charts, tables and images by key."""
    import wandb

    for name, table in content.tables.items():
        yield name, _table(table)
    for name, draw in content.pictures.items():
        if name != "roc":  # W&B draws that itself
            yield f"{name}_plot", wandb.Image(_image(draw()))
    if content.roc:
        yield "roc", roc_chart(content.roc)
    if content.examples:
        yield "adversarial", [wandb.Image(_image(e.pair()), caption=e.caption) for e in content.examples]
        yield "examples", _examples(content.examples)


def roc_chart(curves: list[Curve]) -> Any:
    """The ROC curves in one of W&B's own charts, over a table of their points."""
    import wandb

    return wandb.plot.line_series(
        xs=[curve.x for curve in curves],
        ys=[curve.y for curve in curves],
        keys=[curve.label for curve in curves],
        title="Detection: true against false positives",
        xname="false-positive rate",
    )


def _examples(examples: list[Example]) -> Any:
    import wandb

    return _table(example_table(examples, lambda image: wandb.Image(_image(image))))


def _table(table: Table) -> Any:
    import wandb

    # a column of the detector's bandwidth holds words and numbers
    return wandb.Table(columns=list(table.columns), data=table.rows, allow_mixed_types=True)


def _image(pixels: Any) -> Any:
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
