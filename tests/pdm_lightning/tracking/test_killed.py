"""Killed while W&B still holds rows in memory: what the files lack is logged again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pdm_lightning.tracking import Content, Record, reach, track
from pdm_lightning.tracking.ledger import Ledger, row_name
from tests.pdm_lightning.tracking.two_runs import ROOT, config
from tests.pdm_lightning.tracking.wandb_files import runs

pytestmark = pytest.mark.slow
KEY = "c" * 16
HISTORY = [{"step": float(step), "train/loss": 1 / step} for step in range(1, 9)]
# logs the rows of some steps; "die": by a SIGKILL, "service": W&B's own process by one, and then another run
TRAINING = """
import os, signal, sys
from pathlib import Path
import yaml
from pdm_lightning.tracking import tracking
conf, folder, first, last, how = sys.argv[1:]

def kill_children():
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid, parent = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()[1]
        if int(parent) == os.getpid():
            os.kill(pid, signal.SIGKILL)

def log(key):
    with tracking(yaml.safe_load(open(conf)), Path(folder), key, {}, "study") as (logger,):
        for step in range(int(first), int(last)):
            logger.log_metrics({"step": step, "train/loss": 1 / step}, step=step)
        if key[0] == "c" and how != "finish":
            os.kill(os.getpid(), signal.SIGKILL) if how == "die" else kill_children()

log("c" * 16)
if how == "service":
    log("d" * 16)
"""


def train(output: Path, first: int, last: int, how: str) -> subprocess.CompletedProcess[str]:
    conf = str(ROOT / "conf" / "logger" / "wandb.yaml")
    return subprocess.run(
        [sys.executable, "-c", TRAINING, conf, str(output / "logs"), str(first), str(last), how],
        cwd=ROOT,
        env=os.environ | {"MPLCONFIGDIR": str(output / "mpl")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def end_study(output: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Track the whole training, as when its study has ended; what was done."""
    monkeypatch.setattr(reach, "_state", reach._State())
    record = Record(KEY, "train", "a training", {}, {}, {}, "1", lambda: Content(history=list(HISTORY)))
    return track([record], config("wandb"), output / "logs", "study")


def logged(output: Path, key: str = KEY) -> list[float]:
    """Steps that the files hold, once for each time."""
    found = [row for run in runs(output) if run.run and run.id == key for row in run.history]
    assert all(row["train/loss"] == 1 / row["step"] for row in found if "step" in row)
    return sorted(row["step"] for row in found if "step" in row)


def noted(output: Path, key: str = KEY) -> list[dict[str, float]]:
    missing = Ledger.of(config("wandb"), output / "logs", "study").missing_rows(key, HISTORY, "offline")
    return [row for row in HISTORY if row not in missing]


def test_a_killed_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(tmp_path, 1, 4, "die").returncode == -signal.SIGKILL
    assert noted(tmp_path) == []
    # it goes on from a checkpoint
    assert train(tmp_path, 3, 9, "finish").returncode == 0
    assert noted(tmp_path) == HISTORY[2:]
    assert end_study(tmp_path, monkeypatch).startswith("W&B: 1 runs tracked, offline")
    assert set(logged(tmp_path)) == {row["step"] for row in HISTORY}
    assert noted(tmp_path) == HISTORY
    assert end_study(tmp_path, monkeypatch) == ""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the kernel's list of processes is read")
def test_a_killed_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = train(tmp_path, 1, 9, "service")
    assert done.returncode == 0
    assert "the logger could not be finished" in done.stderr and "Traceback" not in done.stderr
    assert noted(tmp_path) == []
    # the next run of the same process has a service of its own
    assert (
        logged(tmp_path, "d" * 16) == [row["step"] for row in HISTORY]
        and noted(tmp_path, "d" * 16) == HISTORY
    )
    assert end_study(tmp_path, monkeypatch).startswith("W&B: 1 runs tracked, offline")
    assert set(logged(tmp_path)) == {row["step"] for row in HISTORY}


def test_a_note_that_was_cut_short(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.note_rows(KEY, HISTORY[:3], "offline")
    ledger.settle()
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:-3])
    assert [row_name(row) for row in ledger.missing_rows(KEY, HISTORY[:3], "offline")] == ["3 train"]
