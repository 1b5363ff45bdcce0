"""Workers: what they say arrives, the first error of one is the error of all, and none is ever left."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.crew import Crew, WorkerFailed
from pdm_lightning.full_disk import StoreFull, one_line_when_full
from pdm_lightning.holder import process_start

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("crew_workers")


def when(condition: Callable[[], Any]) -> Any:
    """What the condition gives, once it gives something."""
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def gone(pid: int) -> bool:
    return process_start(pid) is None


def test_everything_that_is_said_arrives(workers: Any) -> None:
    with Crew("count") as crew:
        for start in (0, 100):
            crew.start(workers.count, start, start + 50)
        heard = list(crew)
    assert sorted(heard) == [*range(50), *range(100, 150)]
    assert [number for number in heard if number < 100] == list(range(50))


def test_workers_may_be_started_while_others_are_heard(workers: Any) -> None:
    heard = []
    with Crew("count") as crew:
        crew.start(workers.count, 0, 1)
        for number in crew:
            heard.append(number)
            if number < 2:
                crew.start(workers.count, number + 1, number + 2)
    assert heard == [0, 1, 2]


def test_a_worker_gets_its_variables_and_nothing_of_the_script(workers: Any) -> None:
    before = dict(os.environ)
    with Crew("who") as crew:
        crew.start(workers.describe, env={"CREW_TEST": "mine"})
        crew.start(workers.describe)
        (one, mine, *loaded), (two, nothing, *_) = sorted(crew, key=lambda told: told[1] is None)
    assert (mine, nothing) == ("mine", None)
    assert loaded == [False, False]
    assert len({one, two, os.getpid()}) == 3
    assert dict(os.environ) == before


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("def job(say):\n    say('done')\n")
    script = (
        "from pdm_lightning.crew import Crew\nimport jobs\nprint('script')\n"
        "with Crew('job') as crew:\n    crew.start(jobs.job)\n    print(*crew)\n"
    )
    (tmp_path / "script.py").write_text(script)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=env, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.split() == ["script", "done"], done.stderr


def test_the_error_of_a_worker_is_raised_here_and_the_others_are_ended(workers: Any) -> None:
    pids: list[int] = []
    with pytest.raises(ValueError, match="a mistake\nand its second line") as caught, Crew("job") as crew:
        crew.start(workers.sleep)
        for pid in crew:
            pids.append(pid)
            crew.start(workers.two_lines)
    assert "in two_lines" in str(caught.value.__cause__)
    assert len(pids) == 1
    assert gone(pids[0])


@pytest.mark.parametrize(("job", "kind"), [("full", OSError), ("hidden", RuntimeError)])
def test_a_full_disk_is_one_wherever_it_stands_in_the_chain(job: str, kind: type, workers: Any) -> None:
    def run() -> None:
        with Crew("job") as crew:
            crew.start(getattr(workers, job))
            list(crew)

    with pytest.raises(kind, match="no room left" if job == "full" else "the writer failed"):
        run()
    with pytest.raises(StoreFull) as caught, one_line_when_full(Path("/there")):
        run()
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("job", "line"),
    [
        ("awkward", "^Awkward: 1 and 2$"),
        ("leave", "^SystemExit: 3$"),
        ("killed", r"process job-0 was ended \(exit code -9\), perhaps for want of memory: buy some$"),
        ("vanish", r"process job-0 was ended \(exit code 0\), see its own lines above$"),
    ],
)
def test_what_cannot_be_raised_here_is_told(job: str, line: str, workers: Any) -> None:
    with pytest.raises(WorkerFailed, match=line), Crew("job", advice="buy some") as crew:
        crew.start(getattr(workers, job))
        list(crew)


@pytest.mark.parametrize(("culprit", "kind"), [("fails_first", ValueError), ("killed", WorkerFailed)])
def test_of_several_failures_the_first_is_the_reason(
    culprit: str, kind: type, workers: Any, tmp_path: Path
) -> None:
    """Also where this process hears of all at once, the one that lost its peer before the others."""
    with pytest.raises(kind), Crew("job") as crew:
        crew.start(workers.loses_its_peer, str(tmp_path / "mark"))
        crew.start(getattr(workers, culprit), str(tmp_path / "mark"))
        when(lambda: all(worker.process.exitcode is not None for worker in crew._workers))
        list(crew)


def test_leaving_by_an_error_of_one_s_own_ends_them(workers: Any) -> None:
    heard: list[int] = []
    with pytest.raises(KeyboardInterrupt), Crew("job") as crew:
        crew.start(workers.sleep)
        for pid in crew:
            heard.append(pid)
            raise KeyboardInterrupt
    assert gone(heard[0])


def test_signals_to_the_group_are_left_to_the_parent(workers: Any) -> None:
    with Crew("job") as crew:
        crew.start(workers.deaf)
        assert list(crew) == ["still here"]


def test_workers_and_theirs_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pdm_lightning.crew import Crew\nimport crew_workers\n"
        "with Crew('job') as crew:\n    crew.start(crew_workers.nested)\n"
        "    for pid in crew:\n        print(pid, flush=True)\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    parent = subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        assert not any(gone(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
    assert when(lambda: all(gone(pid) for pid in pids))
