"""One builder at a time, whoever races, dies or falls silent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pdm_lightning import lease
from pdm_lightning.holder import myself, process_start
from pdm_lightning.store import Store, artifact_key

ROOT = Path(__file__).resolve().parents[2]
SPEC = {"n": 0}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def write_hello(folder: Path) -> None:
    (folder / "hello.txt").write_text("hello")


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run Python code that finds `store`, `sys`, `time` and `Path` in another process."""
    head = "import sys, time; from pathlib import Path; from pdm_lightning.store import Store\n"
    head += "store = Store(Path(sys.argv[1]))\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


# --- several processes

KILLED = """
def build(folder):
    (folder / "half").write_text("half")
    time.sleep(600)
store.get("model", {"n": 1}, {}, build)
"""


def test_kill_9_and_take_over_at_once(store: Store) -> None:
    key = artifact_key("model", {"n": 1}, {})
    builder = start(KILLED, store.root)
    wait_for(store.partial_path("model", key) / "half")
    assert store.status("model", key) == "running"
    builder.send_signal(signal.SIGKILL)  # not waited for: a zombie must count as dead, too
    begin = time.monotonic()
    artifact = store.get("model", {"n": 1}, {}, lambda folder: (folder / "rest").touch())
    assert time.monotonic() - begin < 10  # far below the 60 s that a holder elsewhere is given
    assert sorted(artifact.manifest["files"]) == ["half", "rest"]
    builder.communicate()


def plant(path: Path, **changes: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(replace(myself(), thread=0, **changes))))


RACE = """
def build(folder):
    with (Path(sys.argv[2])).open("a") as log:
        log.write("built\\n")
    time.sleep(0.3)
    (folder / "x").touch()
go = Path(sys.argv[3])
while not go.exists():
    time.sleep(0.001)
for n in range(3):
    print(store.get("model", {"n": n}, {}, build).key)
"""


@pytest.mark.parametrize("dead", [False, True], ids=["free", "held by the dead"])
def test_processes_that_race_build_once(store: Store, tmp_path: Path, dead: bool) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    for n in range(3 * dead):
        plant(store.root / ".locks" / f"model-{artifact_key('model', {'n': n}, {})}.json", start="1")
    racers = [start(RACE, store.root, log, go) for _ in range(4)]
    go.touch()
    outputs = {racer.communicate(timeout=60)[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0] * 4
    assert outputs == {"".join(artifact_key("model", {"n": n}, {}) + "\n" for n in range(3))}
    assert log.read_text() == "built\n" * 3
    assert sorted(path.name for path in (store.root / ".locks").iterdir()) == [".guard"]


def test_threads_build_once(store: Store) -> None:
    built: list[int] = []

    def build(folder: Path) -> None:
        built.append(1)
        time.sleep(0.2)
        write_hello(folder)

    threads = [threading.Thread(target=store.get, args=("model", SPEC, {}, build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert built == [1]


def test_a_build_that_needs_itself_is_an_error(store: Store) -> None:
    with pytest.raises(RuntimeError, match="depends on itself"):
        store.get("model", SPEC, {}, lambda folder: store.get("model", SPEC, {}, write_hello))


# --- leases


def test_a_reused_process_number_counts_as_dead(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    plant(path, start="1")  # our own number, but another start: the holder was an earlier process
    assert not lease.is_held(path)
    with lease.hold(path, "a") as held:
        assert held is not None and lease.is_held(path)
    assert not path.exists()


def test_a_silent_holder_elsewhere_is_robbed_only_after_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    plant(path, machine="elsewhere", host="elsewhere")
    os.utime(path, (10**9, 10**9))  # clocks of machines differ: how old the beat looks does not matter
    begin = time.monotonic()
    with lease.hold(path, "a", stale_after=0.4) as held:
        assert held is not None
        assert 0.4 <= time.monotonic() - begin < 5


def test_a_beating_holder_elsewhere_is_not_robbed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    plant(path, machine="elsewhere")
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.05):
            os.utime(path)
        path.unlink()

    begin = time.monotonic()
    heart = threading.Thread(target=beat)
    heart.start()
    threading.Timer(1.2, over.set).start()
    with lease.hold(path, "a", stale_after=0.4):
        assert time.monotonic() - begin >= 1.2
    heart.join()


def test_a_lease_without_a_name_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch()  # its holder died between making and writing it
    assert lease.is_held(path)
    begin = time.monotonic()
    with lease.hold(path, "a", stale_after=0.4) as held:
        assert held is not None and time.monotonic() - begin >= 0.4


def test_the_heart_beats(tmp_path: Path) -> None:
    with lease.hold(tmp_path / "a.json", "a", beat=0.02):
        os.utime(tmp_path / "a.json", (0, 0))
        end = time.monotonic() + 10
        while (tmp_path / "a.json").stat().st_mtime == 0:
            assert time.monotonic() < end
            time.sleep(0.01)


GUARD = """
import os, signal
from pdm_lightning import lease
with lease._guard(Path(sys.argv[1])):
    print("in", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_process_suspended_over_the_lock_of_leases_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PATIENCE", 0.3, raising=False)
    suspended = start(GUARD, tmp_path)
    assert suspended.stdout is not None and suspended.stdout.readline() == "in\n"
    got = threading.Event()

    def take() -> None:
        with lease.hold(tmp_path / "a.json", "a") as held:
            if held is not None:
                got.set()

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    try:
        assert got.wait(10)
        taker.join(10)
        assert not (tmp_path / "a.json").exists()
    finally:
        suspended.kill()
        suspended.communicate()


def test_waiting_ends_when_the_artifact_is_ready(tmp_path: Path) -> None:
    plant(tmp_path / "a.json", machine="elsewhere")
    with lease.hold(tmp_path / "a.json", "a", ready=lambda: True) as held:
        assert held is None
    assert (tmp_path / "a.json").exists()


def test_process_start() -> None:
    assert process_start(os.getpid()) == process_start(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but not yet reaped
    assert process_start(child.pid) is None
    child.wait()
    assert process_start(child.pid) is None
    assert myself().local and myself().alive() and myself().host == socket.gethostname()
