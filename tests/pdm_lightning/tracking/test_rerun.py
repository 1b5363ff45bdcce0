"""A tracked study that is run again: nothing twice, what changed once more, and trouble that spoils nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from pdm_lightning.store import Store
from pdm_lightning.tracking import reach, session
from tests.conftest import TINY
from tests.pdm_lightning.tracking.conftest import Tracked


def new_runs(study: Tracked, before: list) -> list:
    known = {run.folder for run in before}
    return [run for run in study.runs() if run.folder not in known]


def test_a_rerun_makes_no_second_run(tracked: Tracked, capsys: pytest.CaptureFixture[str]) -> None:
    before = tracked.runs()
    assert tracked.run() == 0
    assert new_runs(tracked, before) == []
    assert "W&B" not in capsys.readouterr().err


def test_what_is_shown_otherwise_is_tracked_again(tracked: Tracked) -> None:
    before = tracked.runs()
    assert tracked.run("logger.images=2", "logger.upload=[]", "logger.tsne=false") == 0
    again = new_runs(tracked, before)
    assert {run.id for run in again} == {run.id for run in before}
    for run in (run for run in again if run.run.job_type == "cell"):
        assert len(run.table("examples")[1]) == 2
    assert not [
        name for run in again for name in run.artifacts if name.startswith(("model-", "adversarial-"))
    ]


def test_a_training_without_a_logger_is_tracked_afterwards(tracked: Tracked) -> None:
    before = tracked.runs()
    assert tracked.run("logger.project=other", "logger.images=0") == 0
    again = new_runs(tracked, before)
    assert {run.run.project for run in again} == {"other"} and {run.id for run in again} == {
        r.id for r in before
    }
    live = {run.id: run for run in before if any("train/loss" in row for row in run.history)}
    for run in (run for run in again if run.run.job_type == "train"):
        steps = [row["step"] for row in run.history if "step" in row]
        assert steps == [row["step"] for row in live[run.id].history if "step" in row]
        assert [row["trainer/global_step"] for row in run.history if "step" in row] == steps


def test_a_cell_that_fails_is_a_run_that_failed(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    from pdm_lightning.stages.builders import BUILDERS

    def broken(*arguments: object) -> None:
        raise ArithmeticError("no scores today")

    before = tracked.runs()
    with monkeypatch.context() as patch:
        patch.setitem(BUILDERS, "score", broken)
        assert tracked.run("defense=ce", "attack=fgsm_005") == 1
    (run,) = (run for run in new_runs(tracked, before) if run.run.job_type == "cell")
    assert run.exit_code == 1 and run.config["attack"] == "fgsm_005"
    assert run.summary["error"] == "ArithmeticError: no scores today"
    # mended, it is tracked again, as the same run
    assert tracked.run("defense=ce", "attack=fgsm_005") == 0
    mended = [r for r in tracked.runs() if r.id == run.id][-1]
    assert mended.exit_code == 0 and "auc" in mended.summary


def test_below_a_sweeps_agent(tracked: Tracked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {"wandb_version": 1, "defense": {"value": "ce"}, "attack": {"value": "fgsm_010"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asked))
    agent = {"SWEEP_ID": "s1", "RUN_ID": "agents01", "SWEEP_PARAM_PATH": str(tmp_path / "config.yaml")}
    for name, value in (agent | {"PROJECT": "agents"}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    before = tracked.runs()
    session.sweep_agent.cache_clear()
    try:
        # the training is there under its own id; the cell, although it is known, is what the agent waits for
        assert tracked.run("defense=ce", "attack=fgsm_010") == 0
    finally:
        session.sweep_agent.cache_clear()
    (run,) = new_runs(tracked, before)
    assert (run.id, run.run.sweep_id, run.run.project) == ("agents01", "s1", "agents")
    assert (run.config["defense"], run.config["attack"]) == ("ce", "fgsm_010")
    known = next(r for r in before if r.config.get("key") == run.config["key"])
    assert known.id == run.config["key"] and run.summary["auc"] == known.summary["auc"]


@pytest.mark.parametrize("where", ["init", "Table"])
def test_a_crash_of_wandb_spoils_nothing(
    where: str,
    tracked: Tracked,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import wandb

    from pdm_lightning.cli import main

    def crash(*args: object, **kwargs: object) -> None:
        raise RuntimeError("wandb has\ncrashed")

    monkeypatch.setattr(wandb, where, crash)
    words = ["defense=ce", "attack=fgsm_010", *TINY, "budget.train.steps=10", f"paths.output={tmp_path}"]
    assert main(["run", *words, "name=crash", "logger=wandb", "logger.tsne=false"]) == 0
    assert (tmp_path / "report" / "crash" / "results.csv").is_file()
    told = [r.getMessage() for r in caplog.records if "logger=wandb" in r.getMessage()]
    assert told and all("\n" not in line and "wandb has crashed" in line for line in told[-1:])
    assert len(told) == (2 if where == "init" else 1)
    assert reach._state.unreachable is False


def test_tensorboard_carries_the_same_numbers(tracked: Tracked) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert tracked.run("logger=tensorboard") == 0
    folder = tracked.output / "logs" / "tensorboard" / "tracked"
    files = set(folder.rglob("events*"))
    for run in (
        run for run in tracked.runs() if run.run.job_type == "cell" and run.run.project == "pdm-lightning"
    ):
        if not (folder / run.id).is_dir():
            continue
        events = EventAccumulator(str(folder / run.id), size_guidance={"scalars": 0}).Reload()
        rows = [row for row in tracked.rows if row.artifact == run.id]
        for row in rows:
            parts = {"": row.value, "_ci_low": row.ci_low, "_ci_high": row.ci_high, "_n": row.n}
            for part, value in parts.items():
                if value is not None:
                    (event,) = events.Scalars(f"{row.metric}{part}")
                    assert math.isclose(event.value, value, rel_tol=1e-6), row.metric
        curve = [(event.step, event.value) for event in events.Scalars("roc/auc")]
        assert curve[0] == (0, 0.0) and curve[-1] == (1000, 1.0)
        assert {"adversarial", "roc_plot"} <= set(events.Tags()["images"])
        assert "_hparams_/session_start_info" in events.summary_metadata
    for artifact in (a for a in Store(tracked.output / "store").list() if a.kind == "train"):
        events = EventAccumulator(str(folder / artifact.key)).Reload()
        assert "tsne_plot" in events.Tags()["images"]
        loss = [event.value for event in events.Scalars("val/loss")]
        history = artifact.json("train.json")["history"]
        assert loss == pytest.approx([row["val/loss"] for row in history], rel=1e-6)
    assert tracked.run("logger=tensorboard") == 0
    assert set(folder.rglob("events*")) == files
