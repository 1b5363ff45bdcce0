"""Worker processes: every job once, errors told, a killed process replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pdm_lightning.holder import process_start
from pdm_lightning.launchers.local import Workers


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that other processes can import."""
    (tmp_path / "lent_task.py").write_text(
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "def work(job):\n"
        "    folder, name, how = job\n"
        "    with open(Path(folder) / name, 'a') as file:\n"
        "        file.write(f'{os.getpid()} {os.environ.get(\"OMP_NUM_THREADS\")}\\n')\n"
        "    if how == 'raise':\n"
        "        raise ValueError('first line\\nsecond')\n"
        "    if how == 'die':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    time.sleep(float(how or 0))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    from importlib import import_module

    yield import_module("lent_task").work
    sys.modules.pop("lent_task", None)


def ran(folder: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in folder.iterdir()}


def test_every_job_once_and_each_end_told(tmp_path: Path, task) -> None:
    folder = tmp_path / "ran"
    folder.mkdir()
    how = ["", "raise", "", "die", "", "", ""]
    workers = Workers(2, threads=3)
    ended = workers.run(task, [(str(folder), f"job{n}", h) for n, h in enumerate(how)])
    assert ended == ["", "ValueError: first line", "", "its process was ended by SIGKILL", "", "", ""]
    lines = ran(folder)
    assert sorted(lines) == [f"job{n}" for n in range(7)] and all(len(line) == 1 for line in lines.values())
    pids = {line[0].split()[0] for line in lines.values()}
    assert 2 <= len(pids) <= 3 and {line[0].split()[1] for line in lines.values()} == {"3"}
    # the processes stay for the next wave
    assert workers.run(task, [(str(folder), "later", "")]) == [""]
    assert ran(folder)["later"][0].split()[0] in pids
    workers.close()
    assert all(process_start(int(pid)) is None for pid in pids)
    assert "OMP_NUM_THREADS" not in os.environ


def test_one_that_died_while_idle_is_replaced(tmp_path: Path, task) -> None:
    folder = tmp_path / "ran"
    folder.mkdir()
    workers = Workers(1)
    assert workers.run(task, [(str(folder), "first", "")]) == [""]
    pid = int(ran(folder)["first"][0].split()[0])
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    ended = workers.run(task, [(str(folder), "second", "")])
    assert ended in ([""], ["its process was ended by SIGKILL"])
    assert workers.run(task, [(str(folder), "third", "")]) == [""]
    workers.close()


def until(condition: Callable[[], bool], seconds: float = 120) -> bool:
    """Whether it came true in time; a loaded machine takes many seconds to import what a process needs."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path, task) -> None:
    folder = tmp_path / "ran"
    folder.mkdir()
    # jobs last longer than anybody here waits: none ends by itself
    script = (
        "from pdm_lightning.launchers.local import Workers\nfrom lent_task import work\n"
        f"jobs = [({str(folder)!r}, f'job{{n}}', '600') for n in range(2)]\n"
        "if __name__ == '__main__':\n    Workers(2).run(work, jobs)\n"
    )
    (tmp_path / "parent.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")])
    pids: list[int] = []
    try:
        # a file is there before its line is
        assert until(lambda: sum(len(lines) for lines in ran(folder).values()) == 2)
        pids = [int(lines[0].split()[0]) for lines in ran(folder).values()]
        assert all(process_start(pid) for pid in pids)
        parent.kill()
        parent.wait()
        assert until(lambda: not any(process_start(pid) for pid in pids))
    finally:
        parent.kill()
        parent.wait()
        for pid in filter(process_start, pids):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("word", [{"count": 0}, {"threads": 0}, {"count": True}])
def test_numbers_are_checked(word: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"hydra.launcher.(processes|threads)=\w+: a whole number"):
        Workers(**word)
