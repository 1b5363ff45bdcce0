"""Detectors ranked: which attacks count for the mean, the stage, and the rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from detection.averages import mean_auc
from pdm_lightning.stages import average
from pdm_lightning.study.ask import ask
from pdm_lightning.study.averages import fitted, rows, seen
from pdm_lightning.study.plan import Plan, make_plan

ATTACKS = "attack=bim_010,fgsm_010"
LID = "attack@detector.attack=fgsm_010"


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def plan(*words: str, lid: tuple[str, ...] = ()) -> Plan:
        fixed = ("budget=smoke", "card.run=none", "report.tables=[detectors]")
        grids = [["-m", f"paths.output={tmp_path}", *fixed, "detector=kde", *words]]
        grids += [[*grids[0], "detector=lid", *lid]] if lid else []
        return make_plan(cell for grid in grids for cell in ask("run", grid))

    return plan


def names(plan: Plan) -> dict[tuple[str, str], int]:
    """Attacks in each mean, by detector and metric."""
    return {
        (one.entry.cell.config["detector"]["name"], one.metric): len(one.node.parents)
        for one in plan.averaged
    }


def test_the_attack_that_a_detector_has_seen_counts_for_none(planned: Callable[..., Plan]) -> None:
    plan = planned(ATTACKS, lid=(LID,))
    assert names(plan) == {
        (d, m): k for d in ("kde", "lid") for m, k in (("mean_auc", 1), ("mean_auc_all", 2))
    }
    (detector,) = fitted(plan.entries)
    assert fitted(plan.entries) == {detector: ["fgsm_010"]}


def test_it_is_known_by_its_parameters(planned: Callable[..., Plan]) -> None:
    """Under another name, with a word overridden; and not by a name whose words were overridden."""
    attacks = "attack=fgsm_005,fgsm_010"
    other = planned(attacks, lid=(LID, "detector.attack.eps=0.05"))
    assert list(fitted(other.entries).values()) == [["fgsm_005"]]
    assert {e.cell.name("attack") for e in other.entries if seen(e)} == {"fgsm_005"}
    none = planned(attacks, lid=(LID, "detector.attack.eps=0.2"))
    assert list(fitted(none.entries).values()) == [[]]
    assert names(none)["kde", "mean_auc"] == 2


def test_one_detector_is_not_averaged(planned: Callable[..., Plan]) -> None:
    assert planned(ATTACKS).averaged == []
    assert planned(ATTACKS, "report.tables=[accuracy]", lid=(LID,)).averaged == []


class Stored:
    """Artifacts by their node's key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def artifact(self, node: Any) -> Any:
        place = self.folder / node.key
        return SimpleNamespace(
            file=lambda name: place / name, json=lambda name: json.loads((place / name).read_text())
        )


def test_stage(tmp_path: Path) -> None:
    """The pairs of each attack that has enough of them, by the numbers of their images."""
    parents, runs = {}, []
    for number, fooled in enumerate((60, 55, 10)):
        generator = torch.Generator().manual_seed(number)
        clean, adversarial = torch.randn(2, 80, generator=generator, dtype=torch.float64)
        index = torch.randperm(80, generator=generator)
        hit = torch.arange(80) < fooled
        (tmp_path / str(number)).mkdir()
        rows = {"index": index, "clean": clean.clone(), "adversarial": adversarial.clone(), "fooled": hit}
        save_file(rows, tmp_path / str(number) / "scores.safetensors")
        parents[f"score{number}"] = SimpleNamespace(key=str(number))
        runs.append((index[hit], clean[hit], adversarial[hit]))
    node: Any = SimpleNamespace(parents=parents, spec={"bootstrap": 100, "min_n": 50})
    average.build(node, tmp_path, Stored(tmp_path))  # type: ignore[arg-type]
    told, expected = json.loads((tmp_path / "average.json").read_text()), mean_auc(runs[:2], resamples=100)
    assert told == {
        "value": expected.value,
        "low": expected.low,
        "high": expected.high,
        "n": 55,
        "attacks": 2,
    }
    node.spec["min_n"] = 70
    average.build(node, tmp_path, Stored(tmp_path))  # type: ignore[arg-type]
    assert json.loads((tmp_path / "average.json").read_text())["value"] is None


def test_rows(planned: Callable[..., Plan]) -> None:
    plan = planned(ATTACKS, lid=(LID,))
    told = {"value": 0.9, "low": 0.85, "high": 0.95, "n": 60, "attacks": 1}
    artifact: Any = SimpleNamespace(json=lambda name: told)
    found = list(rows(plan.averaged, lambda node: artifact, lambda node: "failed", lambda detector: ""))
    assert {row.metric for row in found} == {"mean_auc", "mean_auc_all"} and {
        row.attack for row in found
    } == {"all"}
    assert {(row.value, row.ci_low, row.ci_high, row.n, row.note) for row in found} == {
        (0.9, 0.85, 0.95, 60, "1 attacks")
    }
    missing = list(rows(plan.averaged, lambda node: None, lambda node: "failed", lambda detector: ""))
    assert {row.status for row in missing} == {"failed"}
    told["value"] = None
    assert {
        r.status for r in rows(plan.averaged, lambda node: artifact, lambda node: "failed", lambda d: "")
    } == {"n/a"}
