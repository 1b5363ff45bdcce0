"""The command: what it says and does, and configuration and attacks of the user's own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pdm_lightning import __version__, load
from pdm_lightning.cli import main
from pdm_lightning.report import read_csv
from pdm_lightning.store import Store

torch.set_num_threads(1)

ATTACK = '''
"""An attack that is no part of the package."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from attacks import Attack, Crafted, Task


@dataclass(frozen=True)
class Darken(Attack):
    """Takes a constant from every pixel."""

    norm: ClassVar[str] = "linf"
    amount: float = 0.5

    def craft(self, task: Task) -> Crafted:
        passes = torch.zeros_like(task.y)
        return Crafted((task.x - self.amount).clamp(0, 1), passes, passes.clone())
'''
OPTION = """
name: darken
label: Darken
cost: cheap
_target_: my_darkening_attack.Darken
amount: 0.5
"""
TINY = (
    "model=resnet8",
    "budget=smoke",
    "budget.train.steps=20",
    "budget.train.batch_size=32",
    "budget.images.cheap=40",
    "evaluate.bootstrap=50",
    "evaluate.min_n=2",
    "trainer=cpu",
    "trainer.threads=1",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A folder of the user's, and the words of a finished run in it with an attack and an option of the user's own."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_darkening_attack.py").write_text(ATTACK)
    (folder / "conf" / "attack").mkdir(parents=True)
    (folder / "conf" / "attack" / "darken.yaml").write_text(OPTION)
    words = ["--config-dir", "conf", "attack=darken", "attack.amount=0.25", "defense=ce", *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        assert main(["run", *words]) == 0
        yield folder, words


def test_attack_and_option_of_the_user(study: tuple[Path, list[str]]) -> None:
    folder, _ = study
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "conf",
        "my_darkening_attack.py",
        "outputs",
    ]
    (craft,) = [
        artifact for artifact in Store(folder / "outputs" / "store").list() if artifact.kind == "craft"
    ]
    assert craft.manifest["spec"]["attack"] == {"_target_": "my_darkening_attack.Darken", "amount": 0.25}
    distances = load(craft.key, str(folder / "outputs"))["linf"]
    # every digit has a pixel that is bright enough to lose all of it
    assert torch.allclose(distances, torch.full_like(distances, 0.25))
    rows = read_csv(folder / "outputs" / "report" / "study" / "results.csv")
    assert {row.status for row in rows if row.attack == "darken[amount=0.25]"} <= {"ok", "n/a"}


def test_plan_finds_everything_cached(
    study: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plan", *study[1]]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "11 cached"
    assert "darken[amount=0.25]" in printed


def test_plan_shows_what_a_change_would_cost(
    study: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *study[1], "-m", "attack.amount=0.25,0.75"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "11 cached, 5 missing"
    assert main(["plan", *study[1], "seed=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "11 missing"


def test_report_computes_nothing(study: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *study[1]]) == 0
    assert "Darken" in capsys.readouterr().out
    assert main(["report", *study[1], "defense=pdm", "name=other"]) == 1
    assert "'pdml run' with the same words computes them" in capsys.readouterr().err


def test_plan_writes_the_speed_of_a_pass_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "experiment=quickstart"]) == 0
    printed = capsys.readouterr().out
    assert "quickstart: 27 cells" in printed
    # three trainings, features, clean, t-SNE, detectors, splits and gradients; nine attacks on each, crafted, scored,
    # looked at, and set beside noise that is scored
    assert printed.splitlines()[-1] == f"{3 * 7 + 27 * 5} missing"
    written = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {("outputs", "passes")}


def test_flags_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for words in (
        ["-m", "defense=ce,pdm", "seed=1"],
        ["defense=ce,pdm", "-m", "seed=1"],
        ["defense=ce,pdm", "seed=1", "-m"],
    ):
        assert main(["plan", *words]) == 0
        # the times are measured anew each time
        outputs.append(re.sub(r"[\d.,]+ (s|min|h)\b", "T", capsys.readouterr().out).split())
    assert "2 cells" in " ".join(outputs[0])
    assert outputs[0] == outputs[1] == outputs[2]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert main(words) == 0
        printed = capsys.readouterr().out
        for part in (
            "pdml run experiment=quickstart",
            "pdml plan",
            "pdml report",
            "--config-dir",
            "pdml completion",
        ):
            assert part in printed


def test_help_of_a_command_shows_groups_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help", "attack=cw"]) == 0
    printed = capsys.readouterr().out
    assert "pdm, pdm_algorithm1, pdm_jacobian" in printed
    assert "Examples\n  pdml run experiment=quickstart" in printed
    assert "binary_search_steps: 9" in printed
    assert "_terms" not in printed
    assert "--config-dir DIR" in printed


def test_configuration_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--cfg", "job", "-p", "attack", "attack.eps=0.25"]) == 0
    assert "eps: 0.25" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--version"], ["run", "--version"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == f"pdml {__version__}\n"


def test_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pdm_lightning", "--version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pdml {__version__}\n", "")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("rn", "unknown command 'rn': did you mean 'run'?"),
        (
            "frobnicate",
            "unknown command 'frobnicate' (run, plan, check, report, tune, compare, store, wandb, fit, detect, "
            "card, export, completion; "
            "pdml --help explains)",
        ),
        ("defense=ce", "'defense=ce' is no command: type pdml run defense=ce ..."),
    ],
)
def test_unknown_command(word: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"pdml: {expected}")
    assert error.count("\n") == 1


def test_stopped_by_the_keyboard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object, **_more: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("pdm_lightning.study.commands.perform", stop)
    assert main(["run"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    command = [sys.executable, "-m", "pdm_lightning", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141
