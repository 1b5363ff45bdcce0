"""The dashboard as code: built without W&B, of panels that show what runs hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.cli import main
from tests.pdm_lightning.tracking.conftest import Tracked

pytest.importorskip("wandb_workspaces")
SECTIONS = [
    "Training curves",
    "Detection AUC by attack and defence",
    "Joint success",
    "ROC curves and images",
]


@pytest.fixture
def spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["wandb", "dashboard", "-m", "defense=ce,pdm", f"paths.output={tmp_path}"]) == 0
    assert "nobody is logged in" in capsys.readouterr().out
    held: dict[str, Any] = json.loads((tmp_path / "logs" / "wandb" / "dashboard.json").read_text())
    return held


def panels(spec: dict[str, Any], section: str | None = None) -> Iterator[dict[str, Any]]:
    for found in spec["section"]["panelBankConfig"]["sections"]:
        if section in (None, found["name"]):
            yield from found["panels"]


def test_sections(spec: dict[str, Any]) -> None:
    sections = spec["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == SECTIONS
    assert all(section["isOpen"] and section["panels"] for section in sections)
    titles = [panel["config"].get("chartTitle") for panel in panels(spec, SECTIONS[0])]
    assert {"Loss", "Accuracy", "Term: ce", "Term: rce", "Term: siamese", "Term: rvl"} <= set(titles)


def test_wandb_takes_it(spec: dict[str, Any]) -> None:
    from wandb_workspaces.workspaces.internal import WorkspaceViewspec

    again = WorkspaceViewspec.model_validate(spec)
    assert json.loads(again.model_dump_json(by_alias=True, exclude_none=True)) == spec


def test_panels_show_what_runs_hold(spec: dict[str, Any], tracked: Tracked) -> None:
    history: set[str] = set()
    held: set[str] = set()
    config: set[str] = set()
    for run in tracked.first:
        history |= {key for row in run.history for key in row}
        held |= set(run.summary)
        config |= set(run.config)
    for panel in panels(spec):
        shown, kind = panel["config"], panel["viewType"]
        if kind == "Run History Line Plot":
            assert {shown["xAxis"], *shown["metrics"]} <= history, shown
        elif kind == "Bar Chart":
            # no threshold can be frozen at 1 % with so few validation images
            assert all(name in held or name.endswith("_0_01") for name in shown["metrics"]), shown
            assert shown["groupBy"].removesuffix(".value") in config
        elif kind == "Media Browser":
            assert set(shown["mediaKeys"]) <= history
        elif kind == "Parallel Coordinates Plot":
            for place, _, name in (column["accessor"].partition(":") for column in shown["columns"]):
                assert name.removesuffix(".value") in (config if place == "config" else held)
    assert "roc_table" in history and '"value": "roc_table"' in json.dumps(spec)


def test_it_is_saved_once_where_somebody_is_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb
    from wandb_workspaces.workspaces import interface, internal

    sent: list[tuple[str, str, str]] = []

    def upsert(view: Any) -> dict[str, Any]:
        sent.append((view.entity, view.project, view.id))
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "VIEW1"}}}

    class Api:
        default_entity = "team"

    monkeypatch.setattr(internal, "upsert_view2", upsert)
    monkeypatch.setattr(interface, "get_app_url", lambda api: "https://wandb.example.org")
    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    for _ in range(2):
        assert main(["wandb", "dashboard", "logger.project=mine", f"paths.output={tmp_path}"]) == 0
    # the second time the same view
    assert sent == [("team", "mine", ""), ("team", "mine", "VIEW1")]
    assert "https://wandb.example.org/team/mine?nw=abc" in capsys.readouterr().out


def test_the_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "wandb_workspaces" else found(name, *a)
    )
    assert main(["wandb", "dashboard", f"paths.output={tmp_path}"]) == 2
    assert "pip install 'pdm-lightning[wandb-workspace]'" in capsys.readouterr().err
