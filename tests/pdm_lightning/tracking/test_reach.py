"""A key for W&B and no way there: runs are offline, and nobody waits twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdm_lightning.tracking import reach, session
from tests.pdm_lightning.tracking.two_runs import config, log_two_runs

pytestmark = pytest.mark.slow

RUN = "0123456789abcdef"


def test_a_key_and_no_network(tmp_path: Path) -> None:
    """The runs are there, offline; whoever starts soon after does not wait."""
    dead = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "2"}
    told = []
    for _ in range(2):
        done = log_two_runs(tmp_path / "logs", tmp_path / "home", **dead)
        assert done.returncode == 0, done.stderr
        told.append([line for line in done.stderr.splitlines() if not line.startswith("wandb: ")])
    ids = [path.name for path in (tmp_path / "logs").glob("wandb/offline-run-*/run-*.wandb")]
    assert sorted(ids) == [f"run-{letter * 16}.wandb" for letter in "aabb"]
    (first,), (second,) = told
    assert first.startswith("W&B cannot be reached (") and first.endswith("): going on offline")
    assert second.startswith("W&B could not be reached ") and "going on offline (delete" in second


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A key, and no way to W&B; what it is given lists the modes that were tried."""
    import wandb

    modes: list[str] = []

    def init(**arguments: object) -> str:
        modes.append(str(arguments["mode"]))
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("no route\nmore")
        return "a run"

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(reach, "_state", reach._State())
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    return modes


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_unreachable_goes_on_offline(
    tmp_path: Path, unreachable: list[str], caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    cfg = config("wandb") | {"mode": mode}
    assert session.start(cfg, tmp_path, RUN, config={}) == "a run"
    assert unreachable == ["online", "offline"] and "(no route): going on offline" in caplog.text
    caplog.clear()
    # the next of a thousand runs does not wait again
    assert session.start(cfg, tmp_path, RUN, config={}) == "a run"
    assert unreachable[2:] == ["offline"] and not caplog.text


def test_another_process_tries_again_after_a_while(
    tmp_path: Path, unreachable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def modes() -> list[str]:
        """Those that a new process tries."""
        monkeypatch.setattr(reach, "_state", reach._State())
        unreachable.clear()
        session.start(config("wandb"), tmp_path, RUN, config={})
        return unreachable

    waits, knows = ["online", "offline"], ["offline"]
    assert modes() == waits and modes() == knows
    (note,) = (tmp_path / "wandb" / "unreachable").iterdir()
    found = json.loads(note.read_text())
    for damaged in ("", "{", "[]", "null", "{}", json.dumps(found | {"time": "soon"})):
        note.write_text(damaged)
        assert modes() == waits
    note.write_text(json.dumps(found | {"time": found["time"] - reach.KEPT - 1}))
    assert modes() == waits and modes() == knows
    # nothing is known of another server, or of what another machine can reach
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
        assert modes() == waits
    note.rename(note.with_name("another.json"))
    assert modes() == waits


def test_a_wrong_key_is_not_remembered(
    tmp_path: Path, unreachable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setattr(wandb.errors, "CommError", wandb.errors.AuthenticationError)
    session.start(config("wandb"), tmp_path, RUN, config={})
    assert unreachable == ["online", "offline"] and not (tmp_path / "wandb" / "unreachable").exists()
