"""Claims are judged where a study asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdm_lightning.claims import CLAIMS
from pdm_lightning.cli import main

WORDS = ("data=digits", "budget=smoke", "attack=none", "card.run=none")


def report(output: Path, *words: str) -> int:
    """Of a study of which nothing has been computed."""
    return main(["report", *WORDS, f"paths.output={output}", *words])


def test_a_study_that_asks(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(tmp_path, "report.claims=true") == 1  # for what is missing
    found = json.loads((tmp_path / "report" / "study" / "claims.json").read_text())
    assert [one["id"] for one in found] == [claim.id for claim in CLAIMS]
    assert {one["verdict"] for one in found} == {"not measured"}
    assert f"{len(CLAIMS)} not measured; claims.md" in " ".join(capsys.readouterr().out.split())


def test_a_study_that_does_not_ask(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(tmp_path) == 1
    assert not list(tmp_path.rglob("claims*"))
    assert "Claims of the paper" not in capsys.readouterr().out


def test_the_switch_is_on_or_off(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(tmp_path, "report.claims=perhaps") != 0
    assert "report.claims=perhaps" in capsys.readouterr().err
