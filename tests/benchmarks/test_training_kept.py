"""What the command on training speed keeps: nothing is measured twice, and figures keep their date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training
from benchmarks.training_cases import Case, spec

TINY = Case("cifar10", "resnet8", "pdm", batch=4, images=40, side=8)


def test_what_is_measured_is_kept_under_its_settings(tmp_path: Path) -> None:
    calls: list[str] = []

    def measure() -> dict[str, Any]:
        calls.append("x")
        return {"a": 1.5}

    path = tmp_path / "out" / "measured.json"
    for told, fresh, expected in (
        ({"threads": 1, "date": "now"}, False, 1),
        ({"threads": 1, "date": "then", "load before": 9}, False, 1),
        ({"threads": 2}, False, 2),
        ({"threads": 2}, True, 3),
    ):
        assert training.Kept(path, told, fresh).once("case", TINY, measure) == {"a": 1.5}
        assert len(calls) == expected
    damaged = (
        "{",
        "[]",
        "null",
        '{"under": {"threads": 2}}',
        '{"under": {"threads": 2}, "found": 3, "load": 1}',
    )
    for number, content in enumerate(damaged):
        path.write_text(content)
        assert training.Kept(path, {"threads": 2}, False).once("case", TINY, measure) == {"a": 1.5}
        assert len(calls) == 4 + number


def test_what_is_measured_keeps_its_date_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def once(date: str, load: float, *cases: Case) -> training.Kept:
        monkeypatch.setattr(training, "settings", lambda: {"date": date})
        kept = training.Kept(
            tmp_path / "measured.json", {"threads": 1, "date": date, "load before": load}, False
        )
        for case in cases:
            kept.once("case", case, lambda: {"a": 1})
        return kept

    assert once("Monday", 0.1, TINY).dates() == "Monday"
    again = once("Tuesday", 2.5, TINY)
    assert (again.dates(), again.load) == ("Monday", 0.1)
    assert once("Tuesday", 2.5, TINY, replace(TINY, batch=2)).dates() == "Monday to Tuesday"


def test_another_configuration_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = training.Kept(tmp_path / "measured.json", {}, False)
    assert kept.once("case", TINY, lambda: {"a": 1}) == kept.once("case", TINY, lambda: {"a": 2}) == {"a": 1}
    told = spec(TINY)
    monkeypatch.setattr(training, "spec", lambda _: told | {"optimizer": told["optimizer"] | {"lr": 0.5}})
    assert kept.once("case", TINY, lambda: {"a": 2}) == {"a": 2}
