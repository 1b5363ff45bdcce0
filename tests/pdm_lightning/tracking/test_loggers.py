"""Loggers: offline for real, never a question, always finished, nothing outside the given folder."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pdm_lightning import tracking
from pdm_lightning.tracking import logged_in, loggers, make_loggers, wandb_mode
from tests.pdm_lightning.tracking.two_runs import CONF, ROOT, config, log_two_runs
from tests.pdm_lightning.tracking.wandb_files import runs

RUN = "0123456789abcdef"


def test_wandb_offline_for_real(tmp_path: Path) -> None:
    nobody, folder = tmp_path / "home", tmp_path / "logs"
    done = log_two_runs(folder, nobody)
    assert done.returncode == 0, done.stderr
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert {path.name for path in files} == {f"run-{'a' * 16}.wandb", f"run-{'b' * 16}.wandb"}
    assert all(b"train/loss" in path.read_bytes() and b"study" in path.read_bytes() for path in files)
    # said on a slow machine, by whoever draws first in a new home
    assert done.stderr.replace("Matplotlib is building the font cache; this may take a moment.\n", "") == ""
    assert not [path for path in nobody.rglob("*") if path.is_file()]


def test_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_mode("auto") == "offline" == wandb_mode("offline")
    with pytest.raises(ValueError, match="nobody is logged in to W&B: run `wandb login`"):
        wandb_mode("online")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert wandb_mode("auto") == "online" == wandb_mode("online")
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert wandb_mode("auto") == "offline"
    assert wandb_mode("online") == "online"
    monkeypatch.setenv("WANDB_MODE", "run")
    assert wandb_mode("auto") == "online"
    with pytest.raises(ValueError, match=r"logger\.mode=on is unknown"):
        wandb_mode("on")
    for wrong in ("Online", ""):  # neither does W&B start with it, whatever mode it is given
        monkeypatch.setenv("WANDB_MODE", wrong)
        with pytest.raises(
            ValueError, match=f"WANDB_MODE={wrong} is unknown to W&B: unset it, or use one of"
        ):
            wandb_mode("offline")


def test_a_netrc_counts_for_its_host_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nobody = tmp_path
    monkeypatch.setenv("HOME", str(nobody))
    (nobody / ".netrc").write_text(
        "machine wandb.example.org login user password x\ndefault login a password b\n"
    )
    assert not logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/api")
    assert logged_in()
    monkeypatch.delenv("WANDB_BASE_URL")
    assert not logged_in()
    # newer releases of W&B's package write this name for the same cloud
    (nobody / ".netrc").write_text("machine api.forge.coreweave.com login user password x\n")
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/api")
    assert not logged_in()
    monkeypatch.setenv("NETRC", str(nobody / "elsewhere"))
    assert not logged_in()
    monkeypatch.delenv("WANDB_BASE_URL")
    (nobody / "elsewhere").write_text("no netrc at all {")
    assert not logged_in()


def test_trouble_does_not_stop_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    def init(**arguments: object) -> None:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(wandb, "init", init)
    with tracking.tracking(config("wandb"), tmp_path, RUN, {}, "study") as made:
        assert made == []
    assert "logger=wandb failed (RuntimeError: the disk is gone): the training goes on" in caplog.text


def test_a_logger_that_breaks_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from pdm_lightning.tracking.guard import Guarded
    from pdm_lightning.tracking.ledger import Ledger

    class Broken:
        calls = 0
        experiment = None

        def log_metrics(self, metrics: dict, step: int) -> None:
            self.calls += 1
            raise OSError("no space")

    broken, ledger = Broken(), Ledger(tmp_path)
    logger = Guarded(broken, ledger, RUN, "offline")  # type: ignore[arg-type]
    for step in (1, 2):
        logger.log_metrics({"step": step, "train/loss": 1.0}, step)
    logger.finish("success")
    assert broken.calls == 1 and caplog.text.count("no space") == 1
    # what it did not get is still to be tracked
    assert len(ledger.missing_rows(RUN, [{"step": 1}, {"step": 2}], "offline")) == 2


def test_who_logs_is_not_asked_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as Lightning has it from there
    with tracking.tracking(config("wandb"), tmp_path / "logs", RUN, {}, "study") as (logger,):
        logger.log_metrics({"step": 1, "train/loss": 1.5}, step=1)
    (run,) = runs(tmp_path)
    assert [row["train/loss"] for row in run.history if "step" in row] == [1.5]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with tracking.tracking(config("tensorboard"), tmp_path, RUN, {"lr": 0.1}, "study") as (logger,):
        logger.log_metrics({"step": 3, "train/loss": 1.5}, step=3)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "study" / RUN))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 1.5)]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_names_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == name else found(n, *a))
    with pytest.raises(ModuleNotFoundError, match=f"logger={name} .* pip install {name}"):
        make_loggers(config(name), tmp_path, RUN, {})


def test_csv_adds_nothing_and_unknown_is_refused(tmp_path: Path) -> None:
    with tracking.tracking(config("csv"), tmp_path / "logs", RUN, {}) as loggers:
        assert loggers == []
    assert not (tmp_path / "logs").exists()
    with pytest.raises(ValueError, match="logger=mlflow is unknown: use one of csv, wandb, tensorboard"):
        make_loggers({"name": "mlflow"}, tmp_path, RUN, {})


def test_trouble_at_the_end_does_not_hide_the_training(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def finalize(self, status: str) -> None:
            raise OSError(f"gone at {status}")

    loggers._finish(Broken(), "success")
    assert "could not be finished: gone at success" in caplog.text


def test_options_of_the_group_share_their_keys() -> None:
    keys = {path.stem: set(yaml.safe_load(path.read_text())) for path in CONF.glob("*.yaml")}
    assert set(keys) == {"csv", "wandb", "tensorboard"}
    assert len({frozenset(k) for k in keys.values()}) == 1


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("logger.images=17", "logger.images=17: a whole number from 0 to 16 needed"),
        ("logger.tsne=yes", "logger.tsne=yes: use true or false"),
        ("logger.tags=thesis", "logger.tags=thesis: a list of texts needed, as 'logger.tags=[thesis,first]'"),
        ("logger.tags=[[a]]", "logger.tags=[['a']]: a list of texts needed"),
        ("logger.project=a/b", "logger.project=a/b: W&B takes at most 128 letters, and none of / \\ # ? % :"),
        ("logger.project=null", "logger.project=null: a text needed"),
        ("logger.entity=7", "logger.entity=7: a text needed"),
        ("logger.upload=[modells]", "logger.upload: 'modells' is unknown: did you mean 'models'?"),
    ],
)
def test_a_wrong_value_is_named(word: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pdm_lightning.cli import main

    assert main(["plan", "logger=wandb", word]) == 2
    assert told in capsys.readouterr().err


def test_a_wrong_wandb_mode_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pdm_lightning.cli import main

    monkeypatch.setenv("WANDB_MODE", "ofline")
    assert main(["plan", "logger=wandb", "logger.tags=[thesis,2026]"]) == 2
    assert "WANDB_MODE=ofline is unknown to W&B: unset it, or use one of online, " in capsys.readouterr().err
    assert main(["plan", "logger=csv"]) == 0


def test_importing_costs_nothing() -> None:
    code = "import sys, pdm_lightning.tracking; print({'wandb', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
