"""What was tracked already: one small file a run, so that a finished study is not tracked twice."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pdm_lightning.tracking.records import Record, Upload


class Ledger:
    """The files of one project.

    What is noted counts here at once, and for everybody when it is settled: a logger that says that it has finished may
    still hold what it was given in memory, and lose it when it is killed.

    Parameters
    ----------
    folder : Path
        Theirs; made when something is settled.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._notes: dict[str, dict[str, Any]] = {}
        self._names: dict[Path, list[str]] = {}

    @classmethod
    def of(cls, cfg: Mapping[str, Any], folder: Path, group: str) -> Ledger:
        """The one of a logger, below the folder of all logs."""
        # what is in one project of W&B, or one study's folder of TensorBoard, is still to be tracked in another
        where = group
        if cfg["name"] == "wandb":
            where = ".".join(str(cfg[part]) for part in ("entity", "project") if cfg.get(part))
        return cls(Path(folder) / str(cfg["name"]) / "tracked" / _file(where or "none"))

    def knows(self, record: Record, group: str, mode: str) -> bool:
        """Whether a run with this content is there, in this group.

        What was written offline is no obstacle to tracking it online, where somebody has logged in since.
        """
        note = self._read(record.key)
        seen = note.get("mode") in (mode, "online")
        return seen and note.get("digest") == record.digest and group in note.get("groups", [])

    def groups(self, key: str, group: str) -> list[str]:
        """The studies that have asked for a run, the present one last."""
        before = [name for name in self._read(key).get("groups", []) if name != group]
        return [*before, group]

    def note(self, record: Record, group: str, mode: str, uploads: Iterable[Upload] = ()) -> None:
        """Keep that a run is tracked as it is now."""
        self._note_uploads(uploads, mode)
        note = {"digest": record.digest, "mode": mode, "groups": self.groups(record.key, group)}
        self._notes[record.key] = note

    def fresh(self, uploads: Iterable[Upload], mode: str) -> list[Upload]:
        """Those that were not uploaded with this content; several cells share an adversarial set."""
        known = {upload.name: self._read(upload.name) for upload in uploads}
        return [
            upload
            for upload in uploads
            if known[upload.name].get("digest") != upload.digest
            or known[upload.name].get("mode") not in (mode, "online")
        ]

    def note_rows(self, key: str, rows: Iterable[Mapping[str, float]], mode: str) -> None:
        """Keep that rows of a training's log are tracked."""
        if names := list(map(row_name, rows)):
            self._names.setdefault(self._rows(key, mode), []).extend(names)

    def settle(self) -> None:
        """Write down what was noted, once it is safe wherever it was tracked."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, names in self._names.items():
            with path.open("a", encoding="utf-8") as file:
                file.write("".join(f"{name}\n" for name in names))
        for key, note in self._notes.items():
            self._write(key, note)
        self._names, self._notes = {}, {}

    def missing_rows(
        self, key: str, history: Iterable[dict[str, float]], mode: str
    ) -> list[dict[str, float]]:
        """Rows of a log that no finished run has."""
        path = self._rows(key, mode)
        seen = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()
        return [row for row in history if row_name(row) not in seen]

    def _note_uploads(self, uploads: Iterable[Upload], mode: str) -> None:
        for upload in uploads:
            self._notes[upload.name] = {"digest": upload.digest, "mode": mode}

    def _rows(self, key: str, mode: str) -> Path:
        return self.folder / f"{_file(key)}.{mode}.rows"

    def _read(self, key: str) -> dict[str, Any]:
        """A note; nothing where there is none, or where it was cut short: then the run is tracked again."""
        if key in self._notes:
            return self._notes[key]
        try:
            note = json.loads((self.folder / f"{_file(key)}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def _write(self, key: str, note: dict[str, Any]) -> None:
        path = self.folder / f"{_file(key)}.json"
        new = path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(note, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(new, path)


def row_name(row: Mapping[str, float]) -> str:
    """What tells a row of a training's log from the others: its step, and which split it is of."""
    split = "val" if any(key.startswith("val/") for key in row) else "train"
    return f"{int(row['step'])} {split}"


def _file(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text)
