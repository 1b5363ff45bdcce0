"""Going through runs: what is there is left alone, what changed is written again, failures are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdm_lightning.tracking import Content, Example, Measured, Record, Upload, session, track
from pdm_lightning.tracking.ledger import Ledger
from pdm_lightning.tracking.records import example_table, numbers
from pdm_lightning.tracking.to_tensorboard import grid

CFG = {"name": "wandb", "project": "p", "entity": None, "upload": ["models"], "mode": "offline"}


class Fake:
    """Notes what it is given; fails for the titles that it is told."""

    kinds = ("models",)

    def __init__(self, *failing: str, mode: str = "offline") -> None:
        self.failing, self.mode = failing, mode
        self.settled, self.unsafe = 0, False
        self.written: list[tuple[str, list[str]]] = []

    def wanted(self, record: Record) -> bool:
        return False

    def write(self, record: Record, content: Content) -> None:
        if record.title in self.failing:
            raise RuntimeError(f"no {record.title}")
        self.written.append((record.title, [upload.name for upload in content.uploads]))

    def settle(self) -> None:
        self.settled = len(self.written)
        if self.unsafe:
            raise ConnectionResetError("killed")

    def told(self, runs: int) -> str:
        return f"{runs} runs"


def record(title: str, digest: str = "1", upload: str = "model-a", content: str = "x") -> Record:
    uploads = [Upload(upload, "models", (), content, {}), Upload("adversarial-a", "adversarial", (), "y", {})]
    return Record(f"key{title}", "cell", title, {}, {}, {}, digest, lambda: Content(uploads=list(uploads)))


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import sys

    module = sys.modules["pdm_lightning.tracking.track"]

    def run(sink: Fake, *records: Record, group: str = "study") -> tuple[str, list[tuple[str, list[str]]]]:
        monkeypatch.setattr(module, "_sink", lambda *a: sink)
        return track(records, CFG, tmp_path, group), sink.written

    return run


def test_once_and_again_when_it_changes(go: Any) -> None:
    assert go(Fake(), record("a"), record("b"))[0] == "2 runs"
    assert go(Fake(), record("a"), record("b")) == ("", [])
    assert go(Fake(), record("a"), record("b", digest="2"))[1] == [("b", [])]


def test_what_was_offline_is_tracked_online_and_not_the_other_way(go: Any) -> None:
    go(Fake(), record("a"))
    assert go(Fake(mode="online"), record("a"))[1] == [("a", ["model-a"])]
    assert go(Fake(mode="online"), record("a"))[1] == []
    assert go(Fake(mode="offline"), record("a"))[1] == []


def test_another_study_gets_the_run_once(go: Any, tmp_path: Path) -> None:
    go(Fake(), record("a"), group="one")
    assert go(Fake(), record("a"), group="two")[0] == "1 runs"
    assert go(Fake(), record("a"), group="one")[0] == ""
    ledger = Ledger.of(CFG, tmp_path, "one")
    assert ledger.groups("keya", "three") == ["one", "two", "three"]


def test_files_are_uploaded_once_until_they_change(go: Any) -> None:
    written = go(Fake(), record("a"), record("b"))[1]
    # of two cells with one adversarial set, the first brings it; what is not asked for is not kept
    assert written == [("a", ["model-a"]), ("b", [])]
    assert go(Fake(), record("a", digest="2", content="z"))[1] == [("a", ["model-a"])]


def test_failures_are_counted_and_tried_again(go: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert go(Fake("b"), record("a"), record("b"), record("c"))[0] == "2 runs"
    (warning,) = [r.getMessage() for r in caplog.records]
    assert warning == "logger=wandb: 1 runs failed; the first: b: RuntimeError: no b"
    assert go(Fake(), record("a"), record("b"), record("c"))[1] == [("b", [])]


def test_it_gives_up_where_everything_fails(go: Any, caplog: pytest.LogCaptureFixture) -> None:
    names = "abcdefgh"
    assert go(Fake(*names), *(record(name) for name in names)) == ("", [])
    assert "3 runs failed, and then no more were tried" in caplog.text


def test_a_damaged_note_is_no_note(go: Any, tmp_path: Path) -> None:
    go(Fake(), record("a"))
    for path in (tmp_path / "wandb" / "tracked" / "p").glob("*.json"):
        path.write_text('{"digest"')
    assert go(Fake(), record("a"))[0] == "1 runs"


def test_what_is_not_safe_is_tracked_again(go: Any) -> None:
    from pdm_lightning.tracking.track import BATCH

    sink = Fake()
    sink.unsafe = True
    names = [f"{n:02d}" for n in range(BATCH)]
    with pytest.raises(ConnectionResetError):
        go(sink, *(record(name) for name in names), record("last"))
    assert sink.settled == len(sink.written) == BATCH
    assert go(Fake(), *(record(name) for name in names))[0] == f"{BATCH} runs"


def test_names_of_numbers() -> None:
    found = numbers({"auc": Measured(0.9, 0.8, 1.0, 50), "cw": Measured(None, n=3), "one": Measured(0.0)})
    assert found == {"auc": 0.9, "auc_ci_low": 0.8, "auc_ci_high": 1.0, "auc_n": 50, "cw_n": 3, "one": 0.0}


def test_a_grid_of_pairs() -> None:
    def example(colour: int, channels: int = 3) -> Example:
        plain = np.full((32, 32, channels), colour, np.uint8)
        return Example(0, plain, 255 - plain, "a", "b", 1.0, 2.0, 0.1, 0.1, {"0.05": True})

    assert example(0, 1).pair().shape == (64, 130, 3)
    assert example(0).caption == "a -> b, score 1 -> 2, flagged at 0.05"
    sheet = grid([example(10 * n) for n in range(5)])
    assert sheet.shape == (2 * 68, 3 * 134, 3)
    assert sheet[10, 10].tolist() == [0] * 3 and sheet[10, 100].tolist() == [255] * 3
    assert sheet[80, 134 + 10].tolist() == [40] * 3 and sheet[80, 2 * 134 + 10].tolist() == [255] * 3
    assert example_table([example(0)]).columns[-1] == "flagged@0.05"


def test_tags_are_short_and_distinct() -> None:
    axes = {"attack": "cw[steps=5]", "budget": "b" * 80, "seed": 3}
    tags = session.run_tags({"tags": ["cw", "mine"]}, session.axis_tags(axes))
    assert tags == ["cw", "mine", "b" * 64, "seed=3"]
