"""A search from the command line to its end: what is asked, told, kept, taken up again, and never done twice."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.cli import main
from pdm_lightning.lit import TrainingDiverged
from pdm_lightning.stages.builders import BUILDERS

pytestmark = pytest.mark.slow

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_search.py")))
search, told, history, kinds, chosen = (
    TINY[name] for name in ("search", "told", "history", "kinds", "chosen")
)


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at by themselves, and take longer than these searches."""
    monkeypatch.setattr("pdm_lightning.report.tune.tune_figures", lambda result: [])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nothing disturbed: four trials, two of them after TPE has begun to learn."""
    output = tmp_path_factory.mktemp("whole")
    assert search(output) == 0
    return output


def refuse(*_: Any) -> None:
    raise AssertionError("computed again")


def test_four_trials_of_two_kinds_of_parameters(whole: Path) -> None:
    trials = told(whole)["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert {trial["state"] for trial in trials} == {"complete"}
    points = {tuple(trial["params"].values()) for trial in trials}
    assert len(points) == 4
    assert all(0.01 <= float(weight) <= 1 and q in ("0.1", "0.3", "0.5") for weight, q in points)
    assert kinds(whole) == {"train": 4, "features": 4, "val_clean": 4}
    assert all(trial["built"] == 3 for trial in trials)


def test_what_is_told_is_what_the_store_holds(whole: Path) -> None:
    from pdm_lightning.store import Store

    store = Store(whole / "store")
    by_training = {store.find(f"features/{a.manifest['parents']['features']}").manifest["parents"]["train"]: a
                   for a in store.list() if a.kind == "val_clean"}  # fmt: skip
    for trial in told(whole)["trials"]:
        train = store.find(f"train/{trial['trainings'][0]}")
        assert train.manifest["spec"]["defense"]["q"] == float(trial["params"]["defense.q"])
        weight = train.manifest["spec"]["defense"]["term"]["rvl"]["weight"]
        assert weight == float(trial["params"]["defense.term.rvl.weight"])
        measured = by_training[train.key].json("clean.json")
        assert trial["values"]["val_dbi"]["mean"] == measured["dbi"]["value"]
        assert trial["values"]["val_accuracy"]["mean"] == measured["accuracy"]["value"]
        # counted on one image after the other here, and as means over batches in the training
        assert train.json("train.json")["val_accuracy"] == pytest.approx(
            measured["accuracy"]["value"], abs=1e-6
        )
        assert trial["values"]["val_dbi"]["n"] == 100


def test_again_computes_nothing_and_says_the_same(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "tune" / "tiny" / "tune.json").read_bytes()
    for kind in BUILDERS:
        monkeypatch.setitem(BUILDERS, kind, refuse)
    assert search(whole) == 0
    assert (whole / "tune" / "tiny" / "tune.json").read_bytes() == before
    assert "Best on validation images" in capsys.readouterr().out


def test_a_search_and_a_study_of_one_name_have_a_report_each(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["report", *TINY["TINY"], f"paths.output={whole}"])
    page = whole / "report" / "tiny" / "index.html"
    of_study = page.read_bytes()
    assert search(whole) == 0
    assert page.read_bytes() == of_study
    assert f"Report: {whole / 'tune' / 'tiny' / 'index.html'}" in capsys.readouterr().out
    assert not (whole / "report" / "tiny" / "tune.json").exists()


def test_another_history_takes_its_artifacts_from_the_store(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study of the same question under another name asks the same, and every answer is there."""
    first = history(whole)
    for kind in BUILDERS:
        monkeypatch.setitem(BUILDERS, kind, refuse)
    assert search(whole, "name=other") == 0
    assert capsys.readouterr().err.count("from the store") == 4
    trials = told(whole, "other")["trials"]
    assert [trial["built"] for trial in trials] == [0, 0, 0, 0]
    assert [(t["params"], t["values"]) for t in trials] == [
        (params, values) for _, params, _, _, values, _ in first
    ]


def test_the_best_command_runs_the_best_model(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    best = told(whole)["best"]
    words = shlex.split(best["command"])
    assert words[:2] == ["pdml", "run"]
    assert main(["plan", *words[2:], "attack=none"]) == 0
    shown = capsys.readouterr().out
    assert best["trainings"][0] in shown
    assert "2 cached, 1 missing" in shown  # training and features; what is missing is the look at test images


def test_killed_and_resumed_is_undisturbed(whole: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of the third trial's training: the rerun ends with the same history."""
    words = chosen(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "pdm_lightning", "tune", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    partial, finished, deadline = (
        tmp_path / "store" / ".partial",
        tmp_path / "store" / "val_clean",
        time.monotonic() + 120,
    )
    while not (
        len(list(finished.glob("*/manifest.json"))) == 2
        and list(partial.glob("train-*/checkpoint/last.ckpt"))
    ):
        assert process.poll() is None, "the search ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "tune" / "tiny" / "tune.json").exists()
    assert search(tmp_path) == 0
    assert history(tmp_path) == history(whole)
    assert kinds(tmp_path) == kinds(whole)  # nothing was trained twice


@pytest.mark.parametrize(("number", "drawn"), [(1, 1), (3, 0), (3, 1), (3, 2)])
def test_killed_between_the_draws_of_a_trial(whole: Path, tmp_path: Path, number: int, drawn: int) -> None:
    """What a trial that was begun had not drawn yet is drawn as an undisturbed search draws it: number 3 by TPE."""
    journal = whole / "tune" / "tiny" / "journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    begun = [row for row, line in enumerate(lines) if '"op_code":4' in line][number]
    params = [row for row, line in enumerate(lines) if row > begun and '"op_code":5' in line]
    kept = lines[: params[drawn - 1] + 1] if drawn else lines[: begun + 1]
    (tmp_path / "tune" / "tiny").mkdir(parents=True)
    (tmp_path / "tune" / "tiny" / "journal.log").write_text("".join(kept) + '{"torn')
    (tmp_path / "store").symlink_to(whole / "store")
    assert search(tmp_path) == 0
    assert history(tmp_path) == history(whole)


def test_more_trials_go_on_from_the_history(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to(whole / "store")
    assert search(tmp_path, "tune.trials=2") == 0
    assert len(told(tmp_path)["trials"]) == 2
    assert search(tmp_path, "tune.trials=4") == 0
    assert history(tmp_path) == history(whole)
    assert search(tmp_path, "tune.trials=3") == 0  # fewer than there are: nothing is begun, nothing is lost
    assert history(tmp_path) == history(whole)


def test_another_question_has_a_history_of_its_own(whole: Path) -> None:
    """In the same folder and journal."""
    assert search(whole, "defense.q=0.3", "tune.trials=1", "optimizer.lr=0.01") == 0
    trials = told(whole)["trials"]
    assert len(trials) == 1
    assert list(trials[0]["params"]) == ["defense.term.rvl.weight"]
    assert search(whole) == 0
    assert len(told(whole)["trials"]) == 4


def test_a_trial_that_diverges_and_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train, calls = BUILDERS["train"], []

    def sometimes(node: Any, folder: Path, context: Any) -> Any:
        calls.append(node.key)
        if len(calls) == 1:
            raise TrainingDiverged("rvl became nan at step 3: lower optimizer.lr")
        if len(calls) == 2:
            raise RuntimeError("the disk caught fire")
        return train(node, folder, context)

    monkeypatch.setitem(BUILDERS, "train", sometimes)
    assert search(tmp_path, "tune.trials=3") == 1  # a failure that nobody expects is told by the exit status
    trials = told(tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["diverged", "failed", "complete"]
    assert trials[0]["reason"] == "rvl became nan at step 3: lower optimizer.lr"
    assert "RuntimeError: the disk caught fire (traceback: " in trials[1]["reason"]
    assert Path(trials[1]["reason"].partition("traceback: ")[2].rstrip(")")).is_file()
    assert trials[0]["values"] == trials[1]["values"] == {}
    assert told(tmp_path)["best"]["number"] == 2
    assert "[1/3] diverged: rvl became nan" in capsys.readouterr().err


def test_failed_trials_are_tried_again_by_the_next_call(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once a call, under the same numbers and with the same values, until what was wrong has passed."""
    trouble, train, calls = tmp_path / "trouble", BUILDERS["train"], []

    def while_there_is_trouble(node: Any, folder: Path, context: Any) -> Any:
        calls.append(node.key)
        if trouble.exists():
            raise RuntimeError("CUDA out of memory")
        return train(node, folder, context)

    monkeypatch.setitem(BUILDERS, "train", while_there_is_trouble)
    trouble.touch()
    for tried in (2, 4):
        assert search(tmp_path, "tune.trials=2") == 1
        assert len(calls) == tried
        assert [trial["state"] for trial in told(tmp_path)["trials"]] == ["failed", "failed"]
        assert "2 trials failed: the same command tries them again" in capsys.readouterr().err
    trouble.unlink()
    assert search(tmp_path, "tune.trials=2") == 0
    assert history(tmp_path) == history(whole)[:2]
    assert "failed" not in capsys.readouterr().err
    assert search(tmp_path, "tune.trials=2") == 0
    assert len(calls) == 6


def test_a_training_that_was_ended_did_not_come_from_the_store(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pdm_lightning.study.tune_history.Trials.watch", lambda self, trial, rows: "slow")
    assert search(tmp_path, "tune.trials=1") == 1
    said = capsys.readouterr().err
    assert "[1/1] pruned: slow" in said
    assert "from the store" not in said
    assert kinds(tmp_path) == {}


def test_seeds_are_averaged(tmp_path: Path) -> None:
    assert search(tmp_path, "tune.seeds=2", "tune.trials=1", "seed=3") == 0
    trial = told(tmp_path)["trials"][0]
    value = trial["values"]["val_dbi"]
    first, second = value["seeds"]
    assert first != second
    assert value["mean"] == pytest.approx((first + second) / 2)
    assert value["sd"] == pytest.approx(abs(first - second) / 2**0.5)
    assert len(trial["trainings"]) == 2
    assert trial["command"].endswith("name=tiny_best seed=3,4")
    assert trial["command"].startswith("pdml run -m ")


def test_an_interrupt_leaves_the_trial_to_the_next_call(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, calls = BUILDERS["features"], []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return features(*arguments)

    monkeypatch.setitem(BUILDERS, "features", interrupted)
    assert search(tmp_path, "tune.trials=2") == 130
    assert search(tmp_path, "tune.trials=2") == 0
    assert history(tmp_path) == history(whole)[:2]


def test_no_trial_is_begun_when_the_time_is_over(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(tmp_path, "tune.timeout=1e-9") == 1
    assert "tune.timeout=1e-09 is over; the same command goes on from here" in capsys.readouterr().err
    assert told(tmp_path)["trials"] == []
    assert (
        "4 of 4 trials are still to come (0 running)."
        in (tmp_path / "tune" / "tiny" / "index.html").read_text()
    )
    (tmp_path / "store").symlink_to(whole / "store")
    assert search(tmp_path) == 0
    assert history(tmp_path) == history(whole)
