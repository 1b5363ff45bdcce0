"""From a plan to its probes, and from artifacts to what the checks look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pdm_lightning.card.evidence import Evidence
from pdm_lightning.study import evidence as gathering
from pdm_lightning.study.ask import ask
from pdm_lightning.study.plan import Plan, make_plan

N = 6


class Folder:
    """An artifact that has every file that anyone asks for."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def file(self, name: str) -> Path:
        return self.place / name

    def json(self, name: str) -> Any:
        return json.loads(self.file(name).read_text(encoding="utf-8"))


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def plan(*words: str) -> Plan:
        return make_plan(
            ask("check", ["-m", f"paths.output={tmp_path}", "budget=smoke", "card.run=all", *words])
        )

    return plan


@pytest.fixture
def gathered(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Evidence]:
    zeros, ones = torch.zeros(N, dtype=torch.int64), torch.ones(N, dtype=torch.float64)
    rows = {name: zeros.clone() for name in ("zero_gradients", "passes", "y")} | {"predicted": zeros + 1}
    rows |= {
        "index": torch.arange(N),
        "success": torch.ones(N).bool(),
        "l2": torch.ones(N),
        "linf": torch.ones(N),
    }
    save_file(rows, tmp_path / "adversarial.safetensors")
    scores = {"clean": ones, "adversarial": ones, "noise": ones, "validation": ones, "test": ones}
    save_file({name: scores.clone() for name, scores in scores.items()}, tmp_path / "scores.safetensors")
    told = {"candidates": N, "thresholds": {"0.05": 1.0}, "nondeterministic": 0.0, "n": N, "fooled": 0}
    for name in ("craft", "score", "alarms", "noise", "validity", "gradients", "splits", "selftest"):
        (tmp_path / f"{name}.json").write_text(json.dumps(told), encoding="utf-8")
    monkeypatch.setattr(gathering._Gatherer, "in_order", lambda self, node: torch.ones(N).bool())

    def gather(*words: str) -> Evidence:
        found = gathering.gather(planned(*words), lambda node: Folder(tmp_path), [], [])  # type: ignore[arg-type,return-value]
        assert found is not None
        return found

    return gather


@pytest.mark.parametrize("order", ["gray_box,white_box", "white_box,gray_box"])
def test_one_crafting_belongs_to_every_threat_that_asks_for_it(
    gathered: Callable[..., Evidence], order: str
) -> None:
    (run,) = gathered("attack=bim_010", f"threat={order}").study()
    assert run.threats == {"gray_box", "white_box"}
    assert all(probe.threats == run.threats for probe in gathered("attack=bim_010", f"threat={order}").runs)


def test_a_surrogates_runs_keep_their_threat(gathered: Callable[..., Evidence]) -> None:
    found = gathered("attack=bim_010", "threat=transfer")
    (run,) = found.study()
    assert run.threats == {"transfer"}
    assert {probe.threat for probe in found.probes("unbounded")} == {"gray_box"}
    assert {probe.threat for probe in found.probes("doubled")} == {"transfer"}


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        (("attack=bim_010", "threat=gray_box"), ["MinNorm", "BIM"]),
        (("attack=bim_010", "threat=transfer"), ["MinNorm", "BIM"]),
        (("attack=bim_010,fgsm_010", "threat=gray_box,transfer"), ["MinNorm", "BIM"]),
        (
            ("attack=selective_pgd", "threat=white_box"),
            ["MinNorm", "BIM", "MinNormWhiteBox", "SelectivePGD"],
        ),
        (("attack=selective_pgd", "threat=transfer"), ["MinNorm", "BIM"]),
        (("attack=square", "threat=white_box", "detector=dknn"), ["MinNorm", "BIM", "Mimicry"]),
        (
            ("attack=selective_pgd", "threat=white_box", "detector=kde,mahalanobis"),
            ["MinNorm", "BIM", *["MinNormWhiteBox", "SelectivePGD"] * 2],
        ),
    ],
)
def test_unbounded_probes_once_a_model_and_detector(
    planned: Callable[..., Plan], words: tuple[str, ...], targets: list[str]
) -> None:
    found = [probe for probe in planned(*words).card.probes if probe.role == "unbounded"]
    assert [probe.attack["_target_"].rpartition(".")[2] for probe in found] == targets
    for probe in found:
        joint = probe.attack["_target_"].endswith(("WhiteBox", "PGD", "Mimicry"))
        assert set(probe.node.parents) == {"train", "features"} | ({"detector"} if joint else set())


def test_the_unbounded_probe_of_a_model_does_not_depend_on_the_threat(planned: Callable[..., Plan]) -> None:
    keys = [
        {
            probe.node.key
            for probe in planned("attack=bim_010", f"threat={threat}").card.probes
            if probe.role == "unbounded"
        }
        for threat in ("gray_box", "white_box", "transfer", "black_box")
    ]
    assert keys == [keys[0]] * 4 and len(keys[0]) == 2


def test_every_iterated_attack_in_a_ball_has_a_single_step_beside_it(
    gathered: Callable[..., Evidence],
) -> None:
    found = gathered("attack=selective_pgd,mimicry_l2,joint_pgd", "threat=white_box")
    for run in found.study():
        (one,) = found.probes("one_step", run)
        assert one.single_step and not run.single_step
        assert one.ball == run.ball and one.attack["step"] == one.attack["eps"]


def test_a_card_says_whether_its_probes_were_planned(gathered: Callable[..., Evidence]) -> None:
    assert gathered("attack=bim_010").probed
    assert not gathered("attack=bim_010", "card.run=facts").probed
