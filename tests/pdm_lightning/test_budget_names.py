"""A budget caps costs and attacks, and nothing that only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdm_lightning.cli import main
from pdm_lightning.study.ask import ask
from pdm_lightning.study.validate import validate

SEARCH = "defense.term.rvl.weight=tag(log,interval(0.01,1))"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], command: str, *words: str) -> str:
    """The one line that a wrong command line gets; nothing was begun."""
    assert main([*command.split(), *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "+budget.images.cw_wbb=100",
            "budget.images.cw_wbb: 'cw_wbb' is unknown: did you mean 'cw_wb'? use cheap, medium, heavy or an "
            "attack's name",
        ),
        ("+budget.images.fgsm_05=100", "'fgsm_05' is unknown: did you mean 'fgsm_005'?"),
        ("+budget.images.heavvy=100", "'heavvy' is unknown: did you mean 'heavy'?"),
        ("+budget.images.zzz=null", "'zzz' is unknown: use cheap, medium, heavy or an attack's name"),
        ("+budget.images.5=7", "budget.images.5: '5' is unknown: use cheap"),
        (
            "+budget.iterations.cw_hcc=20",
            "budget.iterations.cw_hcc: 'cw_hcc' is unknown: did you mean 'cw_hc'? use an attack's name",
        ),
        ("+budget.iterations.cw_wbb.stage1_iterations=20", "did you mean 'cw_wb'?"),
        ("+budget.iterations.heavy=20", "budget.iterations.heavy: 'heavy' is unknown: use an attack's name"),
        ("attack.cost=cw_wb", "attack.cost=cw_wb: use cheap, medium or heavy"),
        ("~budget.images.cheap", "budget.images.cheap is missing"),
    ],
)
def test_a_cap_of_no_cost_and_no_attack(word: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in refused(capsys, "plan", word)


def test_a_sweep_and_a_search_are_refused_too(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "+budget.images.cw_wbb=100"
    assert "did you mean 'cw_wb'?" in refused(capsys, "run", "-m", "attack=fgsm,bim", wrong)
    assert "did you mean 'cw_wb'?" in refused(capsys, "tune", SEARCH, wrong)
    assert list(elsewhere.iterdir()) == []


def test_every_shipped_attack_may_be_named() -> None:
    validate(ask("plan", ["+budget.images.square=7", "+budget.iterations.square.iterations=3"]))
    validate(ask("plan", ["attack.name=mine", "+budget.images.mine=7"]))


PLACES = ["--config-dir=my_conf", "hydra.searchpath=[file://my_conf]"]


@pytest.mark.parametrize("place", PLACES)
def test_an_attack_is_called_by_its_name_and_not_by_its_file(
    place: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "my_conf" / "attack").mkdir(parents=True)
    option = "name: halfway\nlabel: Half\ncost: cheap\nlean: false\n_target_: attacks.FGSM\neps: 0.1\n"
    (elsewhere / "my_conf" / "attack" / "half.yaml").write_text(option)
    validate(ask("plan", [place, "+budget.images.halfway=7"]))
    for words in (["attack=half"], []):
        wrong = refused(capsys, "plan", place, *words, "+budget.images.half=7")
        assert "budget.images.half: 'half' is unknown: did you mean 'halfway'?" in wrong
    assert "did you mean 'bim_010'?" in refused(capsys, "plan", place, "+budget.images.bim_01=5")


@pytest.mark.parametrize("place", PLACES)
def test_attacks_of_the_users_own_may_be_named_where_they_do_not_take_part(
    place: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "my_conf" / "attack").mkdir(parents=True)
    option = "name: half\nlabel: Half\ncost: {}\nlean: false\n_target_: attacks.FGSM\neps: 0.1\n"
    (elsewhere / "my_conf" / "attack" / "half.yaml").write_text(option.format("cheap"))
    validate(ask("plan", [place, "+budget.images.half=7"]))
    (elsewhere / "my_conf" / "attack" / "half.yaml").write_text(option.format("half"))
    wrong = refused(capsys, "plan", place, "attack=half", "+budget.images.half=7")
    assert "attack.cost=half: use cheap, medium or heavy" in wrong
