"""Completion: what it offers, and that bash, zsh and fish offer it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pdm_lightning.cli import main
from pdm_lightning.completion import candidates, complete, script

THREATS = [f"threat={name}" for name in ("black_box", "gray_box", "transfer", "white_box")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "pdml ",
            [
                "run",
                "plan",
                "check",
                "report",
                "tune",
                "compare",
                "store",
                "wandb",
                "fit",
                "detect",
                "card",
                "export",
                "completion",
            ],
        ),
        ("pdml wandb ", ["sweep", "dashboard"]),
        ("pdml wandb sweep attack.e", ["attack.eps="]),
        ("pdml r", ["run", "report"]),
        ("pdml t", ["tune"]),
        ("pdml tune tune.obj", ["tune.objective="]),
        ("pdml tune experiment=tune", ["experiment=tune_pdm"]),
        (
            "pdml tune 'defense.term.rvl.weight=tag(log, interval(0.01, 1))' tune.see",
            ["tune.seed=", "tune.seeds="],
        ),
        ("pdml store ", ["ls", "show", "verify", "gc"]),
        ("pdml store v", ["verify"]),
        ("pdml store ls --so", ["--sort"]),
        ("pdml store ls --sort ", ["kind", "size", "age"]),
        ("pdml store gc --", ["--help", "--keep", "--older-than", "--output", "--without-studies", "--yes"]),
        ("pdml store nonsense ", []),
        ("pdml fit --det", ["--detector"]),
        ("pdml fit --detector kd", ["kde", "kde_logits", "kde_unit"]),
        ("pdml detect --format ", ["csv", "jsonl"]),
        ("pdml card --", ["--help", "--json"]),
        ("pdml --v", ["--version"]),
        ("pdml completion ", ["bash", "zsh", "fish"]),
        ("pdml run defense=pdm_p", ["defense=pdm_printed"]),
        ("pdml plan experiment=table", [f"experiment=table{n}" for n in (1, 2, 3, 4)]),
        ("pdml report attack.e", ["attack.eps="]),
        ("pdml run attack=cw attack.conf", ["attack.confidence="]),
        ("pdml run budget.train.s", ["budget.train.segment=", "budget.train.steps="]),
        ("pdml run opti", ["optimizer.", "optimizer="]),
        ("pdml run seed=", ["seed=0"]),
        ("pdml run -m trainer=c", ["trainer=cpu"]),
        ("pdml run defense=ce -m model=resnet11", ["model=resnet110"]),
        ("pdml run -m defense=ce,pdm_p", ["defense=ce,pdm_printed"]),
        ("pdml run -m defense=ce,pdm attack.e", ["attack.eps="]),
        ("pdml run attack=unknown detector=kde_", ["detector=kde_logits", "detector=kde_unit"]),
        ('pdml run title="a b" threat=', THREATS),
        ('pdml run title="a threat=', THREATS),
        ("pdml run --multi", ["--multirun"]),
        ("pdml run --cfg ", ["job", "hydra", "all"]),
        ("pdml run defense=zzz", []),
        ("pdml nonsense ", []),
    ],
)
def test_candidates(line: str, expected: list[str]) -> None:
    assert candidates(line) == expected


def test_kinds_and_keys_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the store that the line names; keys once something of one is typed."""
    keys = ["3f" + "0" * 14, "3e" + "1" * 14]
    for kind, key in zip(("train", "score"), keys, strict=True):
        (tmp_path / "outputs" / "store" / kind / key).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert candidates("pdml store ls ") == ["score", "train"]
    assert candidates("pdml store show 3f") == [keys[0]]
    assert candidates("pdml store verify tr") == ["train"]
    assert candidates("pdml store verify train/") == [f"train/{keys[0]}"]
    assert candidates("pdml store gc --keep 3") == [keys[1], keys[0]]
    assert candidates("pdml store ls --output elsewhere 3") == []
    assert candidates("pdml store ls paths.output=outputs score/3") == [f"score/{keys[1]}"]
    assert candidates("pdml store ls --output out") == ["outputs/"]
    assert candidates("pdml store ls paths.output=out") == ["paths.output=outputs/"]


def test_files_of_a_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "guard.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert candidates("pdml detect g") == ["guard.safetensors"]
    assert candidates("pdml detect guard.safetensors ") == ["guard.safetensors", "photos/"]
    assert candidates("pdml fit --validation p") == ["photos/"]
    assert candidates("pdml fit --name x") == []


def test_parts_of_options_and_hydra_are_hidden() -> None:
    assert not [choice for choice in candidates("pdml run defense=") if "_terms" in choice]
    assert not [choice for choice in candidates("pdml run -m defense=ce,") if "_terms" in choice]
    everything = candidates("pdml run ")
    assert "attack=" in everything
    assert "attack." in everything
    assert not [choice for choice in everything if choice.startswith("hydra")]
    assert "hydra." in candidates("pdml run hyd")


def test_a_value_is_offered_once_in_a_list() -> None:
    assert "defense=ce,pdm,ce" not in candidates("pdml run -m defense=ce,pdm,")


def test_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my" / "attack").mkdir(parents=True)
    (tmp_path / "my" / "attack" / "mine.yaml").write_text("name: mine\nstrength: 1\n")
    monkeypatch.chdir(tmp_path)
    assert candidates("pdml run --config-dir m") == ["my/"]
    assert candidates("pdml run --config-dir my attack=mine") == ["attack=mine"]
    assert candidates("pdml run --config-dir my attack=mine attack.s") == ["attack.strength="]


def test_a_wrong_line_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMP_LINE", "pdml run --nonsense defense=p")
    assert complete() == 1
    assert capsys.readouterr() == ("", "")


def test_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert (
        capsys.readouterr().err == "pdml: no completion for 'tcsh': use pdml completion bash, zsh or fish\n"
    )
    assert main(["completion"]) == 2
    assert "which shell? use pdml completion bash, zsh or fish" in capsys.readouterr().err


def test_answers_do_not_wait_for_pytorch() -> None:
    code = (
        "import sys\n"
        "from pdm_lightning.cli import main\n"
        "from pdm_lightning.completion import candidates\n"
        "assert candidates('pdml run attack.e') == ['attack.eps=']\n"
        "assert main(['--help']) == main(['completion', 'bash']) == main(['fit', '--help']) == 0\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose ``pdml`` is this one, and scripts of the three shells in it."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "pdml"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pdm_lightning "$@"\n')
    program.chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        (folder / f"script.{shell}").write_text(script(shell))
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path), "BIN": str(folder)}


def answer(environment: dict[str, str], *command: str) -> list[str]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("line", "breaks", "expected"),
    [
        # readline takes '=' for the end of a word: the answer holds what follows it
        ("pdml run defense=rce_", " =:", ["rce_margin", "rce_rvl", "rce_siamese"]),
        ("pdml run -m defense=ce,pdm_p", " =:", ["ce,pdm_printed"]),
        ("pdml plan defense=rce_", " ", ["defense=rce_margin", "defense=rce_rvl", "defense=rce_siamese"]),
        ("pdml run attack.e", " =:", ["attack.eps="]),
        ("pdml r", " =:", ["run", "report"]),
    ],
)
def test_bash(environment: dict[str, str], line: str, breaks: str, expected: list[str]) -> None:
    code = (
        'source "$BIN/script.bash"; COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDBREAKS="$2"; '
        'COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _pdml_complete; echo "${COMPREPLY[@]}"'
    )
    assert answer(environment, "bash", "--norc", "-c", code, "test", line, breaks) == expected


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_asks_for_the_part_before_the_cursor(environment: dict[str, str]) -> None:
    code = (
        'source "$BIN/script.bash"; COMP_LINE="pdml run threat= attack=cw"; COMP_POINT=16; '
        'COMP_WORDS=(pdml run threat = attack = cw); COMP_CWORD=3; _pdml_complete; echo "${COMPREPLY[@]}"'
    )
    assert answer(environment, "bash", "--norc", "-c", code) == [
        threat.removeprefix("threat=") for threat in THREATS
    ]
    registered = answer(environment, "bash", "--norc", "-c", 'source "$BIN/script.bash"; complete -p pdml')
    assert registered == ["complete", "-F", "_pdml_complete", "pdml"]


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
def test_fish(environment: dict[str, str], tmp_path: Path) -> None:
    code = 'source "$BIN/script.fish"; complete -C "pdml run -m defense=ce,rce_"'
    found = answer({**environment, "HOME": str(tmp_path)}, "fish", "--no-config", "-c", code)
    assert found == ["defense=ce,rce_margin", "defense=ce,rce_rvl", "defense=ce,rce_siamese"]


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh(environment: dict[str, str]) -> None:
    """The function runs with a stand-in for `compadd`, which zsh offers only while somebody presses TAB."""
    code = (
        'compdef() { echo "$@" }; compadd() { shift ${@[(i)--]}; print -l -- "$@" }; source "$BIN/script.zsh"; '
        "words=(pdml run attack.e); CURRENT=3; PREFIX=attack.e; _pdml; "
        "words=(pdml run defense=pdm_p); PREFIX=defense=pdm_p; _pdml"
    )
    expected = ["_pdml", "pdml", "attack.eps=", "defense=pdm_printed"]
    assert answer(environment, "zsh", "-f", "-c", code) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_ask_the_program_that_was_typed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert printed == script(shell)
    assert "_complete 2>/dev/null" in printed
