"""Writes runs for TensorBoard: the numbers, curves and images that W&B gets."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pdm_lightning.tracking.ledger import Ledger
from pdm_lightning.tracking.records import Content, Example, Record, Table, example_table, numbers


class TensorBoardSink:
    """One folder a record; see `pdm_lightning.tracking.track.Sink`.

    Parameters
    ----------
    folder : Path
        Everything is written below it.
    group : str
        The study.
    ledger : Ledger
        Knows which rows of a training are there.
    """

    mode = "offline"
    kinds = ()

    def __init__(self, folder: Path, group: str, ledger: Ledger) -> None:
        self.folder, self.group, self.ledger = Path(folder) / "tensorboard", group, ledger

    def wanted(self, record: Record) -> bool:
        """Nobody waits for one."""
        return False

    def write(self, record: Record, content: Content) -> None:
        """Write one folder of events; those of a cell take the place of earlier ones."""
        from torch.utils.tensorboard import SummaryWriter

        place = self.folder / self.group / record.key
        if record.job != "train" and place.exists():
            shutil.rmtree(place)
        rows = self.ledger.missing_rows(record.key, content.history, self.mode)
        with SummaryWriter(str(place)) as writer:
            self._fill(writer, record, content, rows)
        self.ledger.note_rows(record.key, rows, self.mode)

    def settle(self) -> None:
        """Each run's files were closed."""

    def told(self, runs: int) -> str:
        """How many, and how they are looked at."""
        return f"TensorBoard: {runs} runs; to look at them: tensorboard --logdir {self.folder}"

    def _fill(self, writer: Any, record: Record, content: Content, rows: Iterable[dict[str, float]]) -> None:
        for row in rows:
            for name, value in row.items():
                writer.add_scalar(name, value, int(row["step"]))
        self._numbers(writer, record)
        for curve in content.roc:
            # TensorBoard's x axis is whole: a step is a false-positive rate of 1/1000
            for x, y in zip(curve.x, curve.y, strict=True):
                writer.add_scalar(f"roc/{curve.label}", y, round(1000 * x))
        for name, draw in content.pictures.items():
            writer.add_image(f"{name}_plot", draw(), 0, dataformats="HWC")
        if content.examples:
            writer.add_image("adversarial", grid(content.examples), 0, dataformats="HWC")
            writer.add_text("examples", markdown(example_table(content.examples)), 0)
        if "results" in content.tables:
            writer.add_text("results", markdown(content.tables["results"]), 0)
        if record.error:
            writer.add_text("error", record.error, 0)

    @staticmethod
    def _numbers(writer: Any, record: Record) -> None:
        values = {name: float(m.value) for name, m in record.metrics.items() if m.value is not None}
        if record.job == "train":
            for name, value in values.items():
                writer.add_scalar(name, value, 0)
        else:
            # the axes beside the numbers, in the tab HPARAMS; it writes the numbers as scalars too
            writer.add_hparams(dict(record.axes), values, run_name=".", global_step=0)
        for name, value in numbers(record.metrics).items():
            if name not in values:
                writer.add_scalar(name, float(value), 0)


def grid(examples: list[Example], gap: int = 4) -> np.ndarray:
    """All pairs of original and attacked image in one picture, row by row: (H, W, 3) uint8."""
    pairs = [example.pair() for example in examples]
    height, width = pairs[0].shape[:2]
    columns = math.ceil(math.sqrt(len(pairs)))
    rows = math.ceil(len(pairs) / columns)
    sheet = np.full((rows * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    for number, pair in enumerate(pairs):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = pair
    return sheet


def markdown(table: Table) -> str:
    """A table as TensorBoard shows text."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(
        "| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines
    )
