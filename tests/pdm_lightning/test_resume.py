"""A training that was stopped anywhere goes on to exactly the same weights."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pdm_lightning.stages.folder as folder_module
import pdm_lightning.stages.train as train_module
from pdm_lightning.stages.train import Segments

ROOT = Path(__file__).parents[2]
TINY = runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))
tiny_spec, run, weights, equal = (TINY[name] for name in ("tiny_spec", "run", "weights", "equal"))


def killed(folder: Path, step: int) -> None:
    """Train in a process of its own that is killed with SIGKILL in the middle of a step's end."""
    script = f"""
import os, runpy, signal, torch
from pathlib import Path
from pdm_lightning.stages.train import Segments
torch.set_num_threads(1)
def end(self, trainer, module, outputs, batch, batch_idx):
    if batch["step"] == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
Segments.on_train_batch_end = end
runpy.run_path({str(Path(__file__).with_name("tiny_training.py"))!r})["run"](Path({str(folder)!r}))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, timeout=120, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_killed_process_resumes_to_exactly_the_same_weights(undisturbed, tmp_path, monkeypatch):
    killed(tmp_path, 13)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "log.csv"]
    steps: list[int] = []
    count = Segments.on_train_batch_end

    def counted(self, trainer, module, outputs, batch, batch_idx):
        steps.append(batch["step"])
        count(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(Segments, "on_train_batch_end", counted)
    result = run(tmp_path)
    # steps 10 to 12 were lost with the process; those before lay in the checkpoint
    assert steps == list(range(10, 22))
    assert equal(weights(tmp_path), weights(undisturbed))
    assert (tmp_path / "log.csv").read_text() == (undisturbed / "log.csv").read_text()
    assert result["images_seen"] == 22 * 32
    assert not (tmp_path / "checkpoint").exists()


class Killed(BaseException):
    """Stands for a kill at one point."""


@pytest.mark.parametrize(
    "point", ["before a checkpoint is in place", "before any result", "before the clean-up"]
)
def test_a_stop_at_any_point_is_made_good(point, undisturbed, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        if point == "before a checkpoint is in place":
            places = iter(range(3))
            replace = os.replace

            def third(source, target):
                if Path(target).name == "last.ckpt" and next(places) == 2:
                    raise Killed
                replace(source, target)

            patch.setattr(train_module.os, "replace", third)
        elif point == "before any result":
            patch.setattr(folder_module, "save_file", stop)
        else:
            patch.setattr(folder_module.shutil, "rmtree", stop)
        with pytest.raises(Killed):
            run(tmp_path)
    result = run(tmp_path)
    assert equal(weights(tmp_path), weights(undisturbed))
    assert result["history"] == json.loads((undisturbed / "train.json").read_text())["history"]
    assert not (tmp_path / "checkpoint").exists()


def test_a_resume_keeps_to_the_segment_that_it_began_with(undisturbed, tmp_path, monkeypatch):
    def stop(self, trainer, module, outputs, batch, batch_idx):
        if batch["step"] == 7:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Segments, "on_train_batch_end", stop)
        with pytest.raises(Killed):
            run(tmp_path)
    run(tmp_path, tiny_spec(segment=4))
    assert equal(weights(tmp_path), weights(undisturbed))


def test_the_segment_does_not_change_the_weights(undisturbed, tmp_path):
    run(tmp_path, tiny_spec(segment=22))
    assert equal(weights(tmp_path), weights(undisturbed))


def test_a_finished_folder_is_left_alone(undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.iterdir()}
    again = run(undisturbed)
    assert again == json.loads((undisturbed / "train.json").read_text())
    assert {p: p.stat().st_mtime_ns for p in undisturbed.iterdir()} == before


def test_an_interrupt_stays_one_and_can_be_resumed(undisturbed, tmp_path, monkeypatch):
    def interrupt(self, trainer, module, outputs, batch, batch_idx):
        if batch["step"] == 8:
            os.kill(os.getpid(), signal.SIGINT)

    # a shell that starts the tests in the background has the signal ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Segments, "on_train_batch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert signal.getsignal(signal.SIGINT) == handler
    signal.signal(signal.SIGINT, before)
    run(tmp_path)
    assert equal(weights(tmp_path), weights(undisturbed))
