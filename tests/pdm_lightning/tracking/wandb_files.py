"""Reads back what W&B wrote offline: the records of a ``.wandb`` file, which its package only writes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

_BLOCK, _HEAD = 32768, 7


def records(path: Path) -> Iterator[Any]:
    """Protobuf records of a file: LevelDB's log format behind a header of W&B's own."""
    data = path.read_bytes()
    assert data[:_HEAD] == b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    place, whole = _HEAD, b""
    while place + _HEAD <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEAD:  # too little for a head: padding
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + _HEAD])
        place += _HEAD
        part = data[place : place + length]
        place += length
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):  # whole, or its last part
            record = pb.Record()
            record.ParseFromString(whole)
            yield record


@dataclass
class OfflineRun:
    """One folder ``offline-run-<time>-<id>``."""

    folder: Path
    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def id(self) -> str:
        return str(self.run.run_id)

    def table(self, name: str) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows of a table that was logged; an image is what `artifact_file` finds by its ``path``."""
        assert any(name in row for row in self.history)
        content = json.loads(self.artifact_file(f"run-{self.id}-{name}", f"{name}.table.json").read_text())
        return content["columns"], content["data"]

    def artifact_file(self, artifact: str, name: str) -> Path:
        """Where a file of an artifact lies until it is uploaded."""
        (path,) = (e.local_path for e in self.artifacts[artifact].manifest.contents if e.path == name)
        return Path(path)

    def image_files(self, name: str) -> list[Path]:
        logged = next(row[name] for row in self.history if name in row)
        return [self.folder / "files" / path for path in logged.get("filenames", [logged.get("path")])]


def read(folder: Path) -> OfflineRun:
    """All that one run holds."""
    (path,) = folder.glob("run-*.wandb")
    found = OfflineRun(folder)
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            _update(found.config, record.run.config.update)
        elif kind == "config":
            _update(found.config, record.config.update)
        elif kind == "summary":
            _update(found.summary, record.summary.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            found.history.append(row)
        elif kind == "artifact":
            found.artifacts[record.artifact.name] = record.artifact
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def runs(output: Path) -> list[OfflineRun]:
    """Every run below a study's output, in the order in which they were started."""
    files = (output / "logs" / "wandb").glob("offline-run-*/run-*.wandb")  # none where a start failed
    return [read(folder) for folder in sorted({path.parent for path in files})]


def _update(target: dict[str, Any], items: Any) -> None:
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        place = target
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
