"""Asking and telling without any training: what is drawn, who works on what, and what a dead process leaves behind."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study import tune_question
from pdm_lightning.study.tune_history import Trials
from pdm_lightning.study.tune_question import Question
from pdm_lightning.study.tune_trial import Evaluation, Value, evaluate
from pdm_lightning.study.words import config_loader

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_search.py")))


@pytest.fixture(scope="module")
def question() -> Question:
    return tune_question.read([*TINY["SEARCH"], "tune.objective=val_accuracy"], config_loader())


def asked(question: Question, **changes: Any) -> Question:
    return replace(question, settings=replace(question.settings, **changes))


def worth(point: dict[str, str]) -> float:
    """A landscape: the best weight is 0.05, the best Q 0.3."""
    return 1.0 - abs(float(point["defense.term.rvl.weight"]) - 0.05) - abs(float(point["defense.q"]) - 0.3)


def tell(trials: Trials, trial: Any) -> None:
    """Every seventh trial collapses, the others have the landscape's value."""
    value = Value(worth(trials.chosen(trial)), None, 100, (0.0,))
    state = "collapsed" if trial.number % 7 == 3 else "complete"
    trials.tell(trial, Evaluation(state, values={"val_accuracy": value} if state == "complete" else {}))


def run(trials: Trials, most: int = 1000) -> None:
    for _ in range(most):
        with trials.claim() as trial:
            if trial is None:
                return
            tell(trials, trial)


def points(trials: Trials) -> list[dict[str, str]]:
    return [point for _, point, _ in trials.told()]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_in_pieces_asks_as_one_in_one_piece(
    question: Question, tmp_path: Path, sampler: str
) -> None:
    """A new process for each trial, as far as the sampler can tell."""
    question = asked(question, sampler=sampler, trials=12, startup=4)
    run(Trials(tmp_path / "whole", question))
    for _ in range(12):
        run(Trials(tmp_path / "pieces", question), most=1)
    whole = points(Trials(tmp_path / "whole", question))
    assert points(Trials(tmp_path / "pieces", question)) == whole
    assert len({str(point) for point in whole}) > 8
    run(Trials(tmp_path / "seed", asked(question, seed=1)))
    assert points(Trials(tmp_path / "seed", asked(question, seed=1))) != whole


def test_tpe_learns_where_chance_does_not(question: Question, tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        trials = Trials(tmp_path / sampler, asked(question, sampler=sampler, trials=30, startup=8))
        run(trials)
        best[sampler] = sum(worth(point) for point in points(trials)[15:]) / 15
    assert best["tpe"] > best["random"] + 0.05


def test_a_grid_has_every_point_once(question: Question, tmp_path: Path) -> None:
    space = tune_question.split(
        ["defense.q=range(0.1,0.6,0.1)", "defense=choice(pdm,rce_rvl,siamese)"], config_loader()
    )[1]
    grid = replace(asked(question, sampler="grid", trials=100), space=tuple(space))
    assert grid.trials == 15
    seen = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        asked_for = asked(grid, seed=seed)
        trials = Trials(folder, asked_for)
        for _ in range(100):
            with trials.claim() as trial:
                if trial is None:
                    break
                trials.tell(trial, Evaluation("failed"))  # a failed point counts as visited
        seen.append([tuple(point.values()) for point in points(trials)])
    assert len(seen[0]) == len(set(seen[0])) == 15
    assert set(seen[0]) == set(seen[1])
    assert seen[0] != seen[1]
    assert {q for q, _ in seen[0]} == {"0.1", "0.2", "0.3", "0.4", "0.5"}


@pytest.fixture
def held(question: Question, tmp_path: Path) -> Iterator[tuple[Trials, Any]]:
    """A trial that another thread works on."""
    trials, ready, over = Trials(tmp_path, question), threading.Event(), threading.Event()
    found: list[Any] = []

    def work() -> None:
        with trials.claim() as trial:
            found.append(trial)
            ready.set()
            over.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(30)
    yield trials, found[0]
    over.set()
    thread.join()


def test_a_trial_that_is_worked_on_is_left_alone(
    held: tuple[Trials, Any], question: Question, tmp_path: Path
) -> None:
    other = Trials(tmp_path, question)
    with other.claim() as trial:
        assert trial is not None
        assert trial.number == 1
        assert held[1].number == 0
        assert [frozen.number for frozen in other.running()] == [0, 1]
        assert other.chosen(trial) != held[0].chosen(held[1])


def test_no_more_trials_than_were_asked_for(
    held: tuple[Trials, Any], question: Question, tmp_path: Path
) -> None:
    with Trials(tmp_path, asked(question, trials=1)).claim() as trial:
        assert trial is None


def test_what_a_killed_process_began_is_taken_over(question: Question, tmp_path: Path) -> None:
    script = f"""
import os, runpy, signal, sys
from pathlib import Path
from pdm_lightning.study import tune_question
from pdm_lightning.study.tune_history import Trials
from pdm_lightning.study.words import config_loader
words = runpy.run_path({str(Path(__file__).with_name("tiny_search.py"))!r})["SEARCH"]
trials = Trials(Path({str(tmp_path)!r}), tune_question.read([*words, "tune.objective=val_accuracy"], config_loader()))
with trials.claim() as trial:
    print(trial.number, trials.chosen(trial), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False)  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    trials = Trials(tmp_path, question)
    for expected in (0, 1):
        with trials.claim() as trial:
            assert trial is not None
            assert trial.number == expected
            if expected == 0:
                assert done.stdout.strip() == f"0 {trials.chosen(trial)}"
            tell(trials, trial)


def test_a_failed_trial_is_left_to_the_next_call(question: Question, tmp_path: Path) -> None:
    """Two that are begun at once share what had failed, and leave to others what fails in either of them."""
    question = asked(question, trials=2)
    first, drawn = Trials(tmp_path, question), []
    for number in (0, 1):
        with first.claim() as trial:
            assert trial is not None
            assert trial.number == number
            drawn.append(first.chosen(trial))
            first.tell(trial, Evaluation("failed", f"trouble {number}"))
    with first.claim() as trial:
        assert trial is None
    assert first.running() == []
    one, other = Trials(tmp_path, question), Trials(tmp_path, question)
    with one.claim() as mine, other.claim() as theirs:
        assert mine is not None
        assert theirs is not None
        assert (mine.number, theirs.number) == (0, 1)
        assert [frozen.number for frozen in one.running()] == [0, 1]
        assert one.told() == []
        one.tell(mine, Evaluation("failed", "again"))
        other.tell(theirs, Evaluation("failed", "again"))
    for trials in (one, other, first):
        with trials.claim() as trial:
            assert trial is None
    assert [(n, point, e.reason) for n, point, e in one.told()] == [(k, drawn[k], "again") for k in (0, 1)]
    last = Trials(tmp_path, question)
    with last.claim() as trial:  # interrupted
        assert trial is not None
    for number in (0, 1):
        with last.claim() as trial:
            assert trial is not None
            assert trial.number == number
            tell(last, trial)
    assert points(last) == drawn
    assert {evaluation.state for _, _, evaluation in last.told()} == {"complete"}


def test_an_unreadable_journal(question: Question, tmp_path: Path) -> None:
    run(Trials(tmp_path, question))
    journal = tmp_path / "journal.log"
    journal.write_text(journal.read_text().replace('"op_code":4', '"op_code"4', 1))
    with pytest.raises(
        ValueError, match=r"journal\.log cannot be read as a history of trials .*: move it away"
    ):
        Trials(tmp_path, question)
    journal.unlink()
    journal.mkdir()
    with pytest.raises(IsADirectoryError):
        Trials(tmp_path, question)


def test_the_best_point_and_its_importance(question: Question, tmp_path: Path) -> None:
    trials = Trials(tmp_path, asked(question, trials=25, startup=25))
    assert trials.importances() == {}
    run(trials)
    shares = trials.importances()
    assert set(shares) == {"defense.term.rvl.weight", "defense.q"}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["defense.term.rvl.weight"] > shares["defense.q"]  # it moves the value by .95, Q by .2


def rows(*accuracies: float) -> list[dict[str, float]]:
    return [{"step": 10 * k, "val/accuracy": value} for k, value in enumerate(accuracies, start=1)] + [
        {"step": 99.0}
    ]


def test_median_pruning(question: Question, tmp_path: Path) -> None:
    question = asked(question, pruning="median", trials=9)
    trials = Trials(tmp_path, question)
    for number in range(6):
        with trials.claim() as trial:
            assert (
                trials.watch(trial, rows(0.1, 0.5 + 0.01 * number)) == ""
            )  # nobody is judged by fewer than five
            trials.tell(trial, Evaluation(values={"val_accuracy": Value(0.9, None, 100, (0.9,))}))
    with trials.claim() as trial:
        assert trials.watch(trial, rows(0.1)) == ""
        verdict = trials.watch(trial, rows(0.1, 0.4))
        assert verdict == "accuracy 0.400 after 20 steps, below the median of the trials before"
        # as after a death between report and verdict: the very same rows lead to the same verdict
        assert trials.watch(trial, rows(0.1, 0.4)) == verdict
        trials.tell(trial, Evaluation("pruned", verdict))
    with trials.claim() as trial:
        assert trials.watch(trial, rows(0.1, 0.6)) == ""
    assert Trials(tmp_path / "none", asked(question, pruning="none")).watch(trial, rows(0.0)) == ""


def test_a_pruned_training_goes_on_where_it_stopped(question: Question, tmp_path: Path) -> None:
    context = Context(Store(tmp_path / "store"), progress=False)
    question = replace(question, fixed=(*question.fixed, f"paths.output={tmp_path}"))
    point = {"defense.term.rvl.weight": "0.1", "defense.q": "0.5"}
    pruned = evaluate(question, point, context, lambda history: f"seen {len(history)}")
    assert (pruned.state, pruned.values) == ("pruned", {})
    assert pruned.reason.startswith("seen ")
    partial = tmp_path / "store" / ".partial" / f"train-{pruned.trainings[0]}"
    assert (partial / "checkpoint" / "last.ckpt").is_file()
    assert not (tmp_path / "logs").exists()  # it is no failure
    lengths: list[int] = []
    done = evaluate(question, point, context, lambda history: str(lengths.append(len(history)) or ""))
    assert (done.state, done.built) == ("complete", 3)
    # the second, last segment was trained and, as the last, not judged; what is stored is judged by its first
    assert lengths == [1]
    again = evaluate(question, point, context, lambda history: "late")
    assert (again.state, again.reason, again.built) == ("pruned", "late", 0)


def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    words = TINY["chosen"](tmp_path, "tune.sampler=random", "tune.trials=3")
    command = [sys.executable, "-m", "pdm_lightning", "tune", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)]  # fmt: skip
    said = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    finished = sorted(line[:5] for _, err in said for line in err.splitlines() if line.startswith("["))
    assert finished == [f"[{k}/3]" for k in range(1, 4)]  # each trial by one of them
    trials = TINY["told"](tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    assert TINY["kinds"](tmp_path)["train"] == 3
